package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// formerFile holds the kernel's settings that Prepare has changed, in the folder kube of the state directory.
const formerFile = "former-settings.json"

// sysctls are the folders that formerSettings reads: settings of the network, and the ID of the boot.
type sysctls struct{ net, boot string }

var hostSysctls = sysctls{net: "/proc/sys/net", boot: "/proc/sys/kernel/random/boot_id"}

// formerSettings are kernel settings before weft changed them. They hold for one boot: the next one begins with those of the host.
type formerSettings struct {
	Boot string `json:"boot"`
	// Settings are by path below /proc/sys/net.
	Settings map[string]formerSetting `json:"settings"`
}

// formerSetting is the value of a setting before and after weft changed it.
type formerSetting struct {
	Before string `json:"before"`
	After  string `json:"after"`
}

// changeable are the patterns of the settings that masq.EnableForwarding, bridgeNetfilter and raiseNeighbors change, below /proc/sys/net,
// in the order in which they are restored: the kernel resets others when forwarding changes.
var changeable = []string{
	"ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/*/accept_ra",
	"bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables",
	"ipv[46]/neigh/default/gc_thresh[123]",
}

// values returns the settings as they are. Settings that the kernel does not have, or not any more, are missing.
func (s sysctls) values() map[string]string {
	values := map[string]string{}
	for _, pattern := range changeable {
		paths, _ := filepath.Glob(filepath.Join(s.net, pattern)) // the patterns are valid
		for _, path := range paths {
			if text, err := os.ReadFile(path); err == nil {
				values[strings.TrimPrefix(path, s.net+"/")] = strings.TrimSpace(string(text))
			}
		}
	}
	return values
}

func (s sysctls) bootID() (string, error) {
	text, err := os.ReadFile(s.boot)
	if err != nil {
		return "", fmt.Errorf("kube: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// recordChanges calls change, and adds the settings that it changed to the file in dir. Those that are in the file since the boot keep
// their first value. Errors are those of change: what cannot be recorded is not restored.
func (s sysctls) recordChanges(dir string, log *slog.Logger, change func() error) error {
	before := s.values()
	err := change()
	changed := map[string]formerSetting{}
	for name, after := range s.values() {
		if value, known := before[name]; known && value != after {
			changed[name] = formerSetting{value, after}
		}
	}
	if len(changed) == 0 {
		return err
	}
	if recordErr := s.record(dir, changed); recordErr != nil {
		log.Warn("changed kernel settings cannot be recorded: a removal of weft does not restore them", "err", recordErr)
	}
	return err
}

func (s sysctls) record(dir string, changed map[string]formerSetting) error {
	former, err := s.recorded(dir)
	if err != nil {
		return err
	}
	for name, now := range changed {
		if old, known := former.Settings[name]; known {
			now.Before = old.Before
		}
		former.Settings[name] = now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("kube: %w", err)
	}
	return replaceJSON(filepath.Join(dir, formerFile), former)
}

// recorded returns the changes since the boot. A damaged file has none.
func (s sysctls) recorded(dir string) (former formerSettings, err error) {
	boot, err := s.bootID()
	if err != nil {
		return former, err
	}
	text, err := os.ReadFile(filepath.Join(dir, formerFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return former, fmt.Errorf("kube: %w", err)
	}
	if json.Unmarshal(text, &former) != nil || former.Boot != boot || former.Settings == nil {
		former = formerSettings{Boot: boot, Settings: map[string]formerSetting{}}
	}
	return former, nil
}

// restore gives the settings in the file in dir their former values, unless another program has changed them since, and returns their
// names in the notation of sysctl.
func (s sysctls) restore(dir string) (restored []string, err error) {
	former, err := s.recorded(dir)
	if err != nil {
		return nil, err
	}
	now := s.values()
	var errs []error
	names := slices.SortedFunc(maps.Keys(former.Settings), func(a, b string) int {
		if d := orderOf(a) - orderOf(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		setting := former.Settings[name]
		if orderOf(name) < 0 || now[name] != setting.After {
			continue
		}
		if err := os.WriteFile(filepath.Join(s.net, name), []byte(setting.Before), 0); err != nil {
			errs = append(errs, fmt.Errorf("kube: restore a network setting: %w", err))
			continue
		}
		restored = append(restored, "net."+strings.ReplaceAll(name, "/", "."))
	}
	return restored, errors.Join(errs...)
}

// orderOf returns the index of the pattern in changeable that a name matches; -1: none.
func orderOf(name string) int {
	return slices.IndexFunc(changeable, func(pattern string) bool {
		match, _ := filepath.Match(pattern, name)
		return match
	})
}
