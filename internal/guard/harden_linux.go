package guard

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

// setting is a setting of an interface with the value that protects the host (Documentation/networking/ip-sysctl.rst).
type setting struct{ family, name, value string }

// portSettings keep the host off a port: it would have a link-local address there as soon as the port is on no bridge.
var portSettings = []setting{{"ipv6", "disable_ipv6", "1"}, {"ipv4", "accept_redirects", "0"}}

// HardenPort sets the settings of a port of the bridge that belongs to weft, and writes only those that differ. Missing ones are no
// error: the kernel has no IPv6 then, or the interface is gone. The rules of this package have the same effect where /proc/sys is
// read-only.
func HardenPort(name string) error { return harden(sysNet, name, portSettings) }

func harden(root, name string, settings []setting) error {
	var errs []error
	for _, s := range settings {
		path := filepath.Join(root, s.family, "conf", name, s.name)
		text, err := os.ReadFile(path)
		if err == nil && strings.TrimSpace(string(text)) != s.value {
			err = os.WriteFile(path, []byte(s.value), 0)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("guard: change network setting: %w", err))
		}
	}
	return errors.Join(errs...)
}
