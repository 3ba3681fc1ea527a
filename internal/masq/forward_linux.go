package masq

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sysNet is where the kernel has the network settings of the reading thread's namespace.
const sysNet = "/proc/sys/net"

// EnableForwarding lets the host route between its interfaces, as it must for pods that reach the world through it,
// for each family that is wanted.
//
// A router ignores router advertisements unless told otherwise (accept_ra 2 in the kernel's ip-sysctl.rst); a host
// that has its default route from one would lose it, so the interfaces that accept them keep doing so.
func EnableForwarding(v4, v6 bool) error { return enableForwarding(sysNet, v4, v6) }

func enableForwarding(root string, v4, v6 bool) error {
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
	if err := keepAdvertisements(root); err != nil {
		return err
	}
	return TurnOn(path)
}

// keepAdvertisements raises accept_ra from 1, "unless forwarding", to 2, "always".
func keepAdvertisements(root string) error {
	paths, err := filepath.Glob(filepath.Join(root, "ipv6/conf/*/accept_ra"))
	if err != nil {
		return fmt.Errorf("masq: %w", err)
	}
	for _, path := range paths {
		on, err := isOn(path)
		if errors.Is(err, fs.ErrNotExist) { // the interface has gone
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

// TurnOn writes 1 where that is not there yet, so that a read-only /proc/sys with the right values is good enough.
func TurnOn(path string) error {
	on, err := isOn(path)
	if err != nil || on {
		return err
	}
	return write(path, "1")
}

// isOn reports whether the setting is 1.
func isOn(path string) (bool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("masq: reading a network setting: %w", err)
	}
	return strings.TrimSpace(string(text)) == "1", nil
}

func write(path, value string) error {
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("masq: changing a network setting: %w", err)
	}
	return nil
}
