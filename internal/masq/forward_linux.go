package masq

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sysNet is the folder of the network settings of the calling thread's namespace.
const sysNet = "/proc/sys/net"

// EnableForwarding turns on routing between the interfaces of the host, for IPv4, IPv6 or both. Pods need it to reach other
// networks through the host.
//
// With IPv6 forwarding the kernel ignores router advertisements unless accept_ra is 2 (ip-sysctl.rst). A host with a default
// route from an advertisement would lose it, so accept_ra becomes 2 on the interfaces on which the host relies on advertisements:
// never on those of pods, and not for interfaces that appear later.
func EnableForwarding(v4, v6 bool) error { return enableForwarding(sysNet, v4, v6, reliant) }

func enableForwarding(root string, v4, v6 bool, reliant func() ([]string, error)) error {
	if v4 {
		if err := TurnOn(filepath.Join(root, "ipv4/ip_forward")); err != nil {
			return err
		}
	}
	if !v6 {
		return nil
	}
	path := filepath.Join(root, "ipv6/conf/all/forwarding")
	if on, err := isOn(path); err != nil || on {
		return err
	}
	names, err := reliant()
	if err != nil {
		return err
	}
	if err := keepAdvertisements(root, names); err != nil {
		return err
	}
	return TurnOn(path)
}

// keepAdvertisements changes accept_ra from 1 ("unless forwarding") to 2 ("always") on the named interfaces.
func keepAdvertisements(root string, names []string) error {
	for _, name := range names {
		path := filepath.Join(root, "ipv6/conf", name, "accept_ra")
		on, err := isOn(path)
		if errors.Is(err, fs.ErrNotExist) { // the interface was removed
			continue
		} else if err != nil {
			return err
		}
		if on {
			if err := write(path, "2"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// TurnOn writes 1 to the file of a setting. It does not write if the value is 1 already, so /proc/sys may be read-only then.
func TurnOn(path string) error {
	on, err := isOn(path)
	if err != nil || on {
		return err
	}
	return write(path, "1")
}

// isOn reports whether a setting is 1.
func isOn(path string) (bool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("masq: read network setting: %w", err)
	}
	return strings.TrimSpace(string(text)) == "1", nil
}

func write(path, value string) error {
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("masq: change network setting: %w", err)
	}
	return nil
}
