package tap_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/tap"
	"weft/tap/taptest"
)

// kinds are the kinds of kernel devices.
var kinds = []struct {
	name  string
	plain bool
}{{"offload", false}, {"plain", true}}

func TestConformance(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			taptest.TestDevice(t, func(t *testing.T) taptest.Host {
				taptest.InNamespace(t)
				d := open(t, tap.Config{Name: "wd-tap", MTU: 1500, Queues: 1, Plain: kind.plain})
				socket := taptest.NewSocket(t, d.Name())
				return taptest.Host{Device: d, Send: socket.Send, Receive: socket.Receive}
			})
		})
	}
}

func open(t *testing.T, cfg tap.Config) tap.Device {
	t.Helper()
	d, err := tap.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestState: the interface is set up as Open documents it, and Close removes it.
func TestState(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			taptest.InNamespace(t)
			d := open(t, tap.Config{Name: "wd-tap", MTU: 1422, Queues: 2, Plain: kind.plain})
			link, err := netlink.LinkByName("wd-tap")
			if err != nil {
				t.Fatal(err)
			}
			if a := link.Attrs(); a.MTU != 1422 || a.RawFlags&unix.IFF_UP == 0 || len(d.Queues()) != 2 {
				t.Errorf("MTU %d, flags %x, %d queues", a.MTU, a.RawFlags, len(d.Queues()))
			}
			addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
			if err != nil || len(addrs) != 0 {
				t.Errorf("IPv6 addresses %v, %v; want none", addrs, err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := netlink.LinkByName("wd-tap"); err == nil {
				t.Error("the interface has outlived Close")
			}
		})
	}
}

// readAll calls got with every frame from any queue of d until d is closed, from several goroutines.
func readAll(d tap.Device, got func(f tap.Frame)) {
	for _, q := range d.Queues() {
		go func() {
			b := tap.NewBatch(1<<18, 16, 0, 0)
			for {
				b.Reset()
				if _, err := taptest.Read(q, b); err != nil {
					return
				}
				for _, f := range b.Frames() {
					got(f)
				}
			}
		}()
	}
}

// TestQueues: every frame is read from exactly one of several queues.
func TestQueues(t *testing.T) {
	const frames = 64
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			taptest.InNamespace(t)
			d := open(t, tap.Config{Name: "wd-tap", MTU: 1500, Queues: 3, Plain: kind.plain})
			got := make(chan byte, 2*frames)
			readAll(d, func(f tap.Frame) { got <- f.Data[14] })
			socket := taptest.NewSocket(t, "wd-tap")
			for n := range frames {
				f := make([]byte, 60)
				copy(f, []byte{0x0a, 0, 0, 0, 0, byte(n), 0x0a, 1, 1, 1, 1, byte(n), 0x88, 0xb5, byte(n)})
				if err := socket.Send(f); err != nil {
					t.Fatal(err)
				}
			}
			seen := map[byte]bool{}
			for len(seen) < frames {
				select {
				case n := <-got:
					if seen[n] {
						t.Fatalf("frame %d came twice", n)
					}
					seen[n] = true
				case <-time.After(10 * time.Second):
					t.Fatalf("%d of %d frames", len(seen), frames)
				}
			}
		})
	}
}

func TestConfigRefused(t *testing.T) {
	good := tap.Config{Name: "weft0", MTU: 1422, Queues: 1}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*tap.Config){
		"Name \"\"":                 func(c *tap.Config) { c.Name = "" },
		"Name \"..\"":               func(c *tap.Config) { c.Name = ".." },
		"Name \"a/b\"":              func(c *tap.Config) { c.Name = "a/b" },
		"Name \"tap%d\"":            func(c *tap.Config) { c.Name = "tap%d" },
		"Name \"sixteen-bytes-xx\"": func(c *tap.Config) { c.Name = "sixteen-bytes-xx" },
		"MTU 67":                    func(c *tap.Config) { c.MTU = 67 },
		"MTU 65522":                 func(c *tap.Config) { c.MTU = 65522 },
		"Queues 0":                  func(c *tap.Config) { c.Queues = 0 },
	} {
		cfg := good
		change(&cfg)
		_, err := tap.Open(cfg)
		if !errors.Is(err, tap.ErrConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestNameInUse: the name of a link of any kind, or of a TAP of another process, is refused, and the link is not
// changed.
func TestNameInUse(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			taptest.InNamespace(t)
			cfg := tap.Config{Name: "wd-tap", MTU: 1500, Queues: 2, Plain: kind.plain}
			first := open(t, cfg)
			refused(t, cfg, tap.ErrNameInUse, "wd-tap", "ip link del wd-tap")
			if mtu, err := first.MTU(); err != nil || mtu != 1500 {
				t.Errorf("the first holder has lost it: %d, %v", mtu, err)
			}
			cfg.Name = "wd-bridge"
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: cfg.Name}}); err != nil {
				t.Fatal(err)
			}
			refused(t, cfg, tap.ErrNameInUse, "wd-bridge", "bridge")
		})
	}
}

// refused checks that Open(cfg) fails with an error that is want and contains words.
func refused(t *testing.T, cfg tap.Config, want error, words ...string) {
	t.Helper()
	d, err := tap.Open(cfg)
	if err == nil {
		d.Close()
	}
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

// TestNoCapability drops CAP_NET_ADMIN on one thread.
func TestNoCapability(t *testing.T) {
	taptest.InNamespace(t)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all [2]unix.CapUserData
	if err := unix.Capget(&header, &all[0]); err != nil {
		t.Fatal(err)
	}
	less := all
	less[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&header, &less[0]); err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		refused(t, tap.Config{Name: "wd-tap", MTU: 1500, Queues: 1, Plain: kind.plain}, tap.ErrPermission, "wd-tap", "root")
	}
	if err := unix.Capset(&header, &all[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := netlink.LinkByName("wd-tap"); err == nil {
		t.Error("something was left behind")
	}
}

// TestNoTun hides /dev/net from one thread.
func TestNoTun(t *testing.T) {
	taptest.RequireRoot(t)
	done := make(chan error)
	go func() { // its thread ends with it, as it stays locked
		runtime.LockOSThread()
		err := errors.Join(
			unix.Unshare(unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, ""),
		)
		if err == nil {
			_, err = tap.Open(tap.Config{Name: "wd-tap", MTU: 1500, Queues: 1})
		}
		done <- err
	}()
	err := <-done
	if !errors.Is(err, tap.ErrNoTun) || !strings.Contains(err.Error(), "modprobe tun") {
		t.Errorf("error %v, want ErrNoTun and a remedy", err)
	}
}

// TestReadOnlySysctl: in a container with a read-only /proc/sys the TAP still gets no IPv6 address.
func TestReadOnlySysctl(t *testing.T) {
	taptest.RequireRoot(t)
	type result struct {
		addrs []netlink.Addr
		err   error
	}
	done := make(chan result)
	go func() { // its thread ends with it, as it stays locked
		runtime.LockOSThread()
		r := result{err: errors.Join(
			unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_NEWNET),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""),
			unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""),
		)}
		if r.err == nil {
			r.addrs, r.err = addrsOfNewTap()
		}
		done <- r
	}()
	if r := <-done; r.err != nil || len(r.addrs) != 0 {
		t.Errorf("addresses %v, %v; want none", r.addrs, r.err)
	}
}

// addrsOfNewTap returns the IPv6 addresses of a new TAP.
func addrsOfNewTap() ([]netlink.Addr, error) {
	d, err := tap.Open(tap.Config{Name: "wd-tap", MTU: 1500, Queues: 1})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	link, err := netlink.LinkByName(d.Name())
	if err != nil {
		return nil, err
	}
	return netlink.AddrList(link, netlink.FAMILY_V6)
}

// TestDeleted: the deletion of the interface ends the reader with an error.
func TestDeleted(t *testing.T) {
	taptest.InNamespace(t)
	d := open(t, tap.Config{Name: "wd-tap", MTU: 1500, Queues: 1})
	ended := make(chan error)
	go func() {
		_, err := taptest.Read(d.Queues()[0], tap.NewBatch(1<<17, 16, 0, 0))
		ended <- err
	}()
	link, err := netlink.LinkByName("wd-tap")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "deleted") {
		t.Errorf("ReadFrames: %v", err)
	}
	_, err = d.Queues()[0].WriteFrames([]tap.Frame{{Data: make([]byte, 60)}})
	if err == nil || errors.Is(err, tap.ErrFrame) {
		t.Errorf("WriteFrames: %v", err)
	}
}

func TestMain(m *testing.M) {
	if _, err := os.Stat("/dev/net/tun"); err != nil && os.Getenv("WEFT_TEST") == "require" {
		fmt.Fprintln(os.Stderr, "tap: the tests need /dev/net/tun, and WEFT_TEST=require forbids to skip them")
		os.Exit(1)
	}
	os.Exit(m.Run())
}
