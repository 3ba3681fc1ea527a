package driver

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"weft/bench/lab"
	"weft/internal/nettest"
)

// wireguard is wireguard-go, a widely used tunnel in Go, which also uses segmentation offloads.
type wireguard struct {
	program string
}

// Version and settings of wireguard-go.
const (
	wireguardPackage = "golang.zx2c4.com/wireguard"
	wireguardVersion = "v0.0.0-20260522210424-ecfc5a8d5446"
	wireguardMTU     = nettest.DefaultMTU - 80
	wireguardPort    = 51820
	wireguardSockets = "/var/run/wireguard" // fixed in wireguard-go
)

// Name implements Driver.
func (*wireguard) Name() string { return "wireguard-go" }

// Summary implements Driver.
func (*wireguard) Summary() string {
	return "wireguard-go, a layer 3 tunnel in userspace, ChaCha20-Poly1305"
}

// Prepare implements Driver.
func (w *wireguard) Prepare(ctx context.Context, t *Tools) (err error) {
	w.program, err = t.goTool(ctx, "wireguard", wireguardPackage, wireguardVersion)
	return err
}

// Up implements Driver.
func (w *wireguard) Up(ctx context.Context, l *lab.Lab) (*Overlay, error) {
	o := &Overlay{}
	err := w.connect(ctx, o, l, podAddr)
	for i, h := range l.Ends {
		o.Ends = append(o.Ends, lab.End{Space: h.Space, Addr: podAddr(i)})
	}
	o.Facts.Version, o.Facts.MTU, o.Facts.Ends = wireguardVersion, wireguardMTU, betweenHosts
	o.Facts.Encrypted, o.Facts.Cipher = true, "chacha20-poly1305"
	return o, err
}

// start starts wireguard-go on a host, and returns the name of its device and the path of its control socket.
func (w *wireguard) start(o *Overlay, h *nettest.Host, i int) (ifname, socket string, err error) {
	// The control socket has the name of the interface, in one folder for the whole machine.
	ifname = fmt.Sprintf("wb%d-%d", os.Getpid(), i)
	socket = filepath.Join(wireguardSockets, ifname+".sock")
	p, err := h.Start(nettest.ProcessConfig{Name: "wireguard", Argv: []string{w.program, "-f", ifname}})
	if err != nil {
		return "", "", err
	}
	o.Daemons = append(o.Daemons, p)
	o.atClose(func() { _ = os.Remove(socket) })
	return ifname, socket, nil
}

// connect connects the hosts by wireguard-go, with the given addresses inside.
func (w *wireguard) connect(ctx context.Context, o *Overlay, l *lab.Lab, inside func(i int) netip.Addr) error {
	keys := make([]*ecdh.PrivateKey, len(l.Ends))
	for i := range keys {
		var err error
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return fmt.Errorf("driver: %w", err)
		}
	}
	for i, h := range l.Ends {
		ifname, socket, err := w.start(o, h, i)
		if err != nil {
			return err
		}
		if err := w.configure(ctx, o, socket, w.settings(l, keys, i, inside)); err != nil {
			return err
		}
		if err := tunnelAddr(ctx, o, h, inside(i), ifname, wireguardMTU); err != nil {
			return err
		}
	}
	return nil
}

// settings returns the configuration of the i-th node, in the format of the control socket.
func (*wireguard) settings(l *lab.Lab, keys []*ecdh.PrivateKey, i int, inside func(i int) netip.Addr) string {
	var s strings.Builder
	fmt.Fprintf(&s, "set=1\nprivate_key=%x\nlisten_port=%d\nreplace_peers=true\n", keys[i].Bytes(), wireguardPort)
	for j, h := range l.Ends {
		if j != i {
			fmt.Fprintf(&s, "public_key=%x\nendpoint=%s\nallowed_ip=%s/32\n",
				keys[j].PublicKey().Bytes(), netip.AddrPortFrom(h.Addr(), wireguardPort), inside(j))
		}
	}
	return s.String() + "\n"
}

// listens returns an error unless a program listens on a control socket. Its file exists a moment before.
func listens(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err == nil {
		err = conn.Close()
	}
	return err
}

// configure waits until a daemon listens on its control socket, and sends the settings to it.
func (*wireguard) configure(ctx context.Context, o *Overlay, socket, settings string) error {
	var conn net.Conn
	err := o.until(ctx, func(context.Context) (err error) {
		conn, err = net.Dial("unix", socket)
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(settings)); err != nil {
		return fmt.Errorf("driver: wireguard-go's socket: %w", err)
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return fmt.Errorf("driver: wireguard-go's socket: %w", err)
	}
	if answer != "errno=0\n" {
		return errors.New("driver: wireguard-go rejected its configuration: " + strings.TrimSpace(answer))
	}
	return nil
}

// tunnelAddr waits for a host's tunnel interface, sets its address and MTU, and brings it up.
func tunnelAddr(ctx context.Context, o *Overlay, h *nettest.Host, addr netip.Addr, ifname string, mtu int) error {
	err := o.until(ctx, func(ctx context.Context) error {
		_, err := h.Run(ctx, "ip", "link", "set", ifname, "mtu", fmt.Sprint(mtu), "up")
		return err
	})
	if err != nil {
		return err
	}
	_, err = h.Run(ctx, "ip", "addr", "add", addr.String()+"/24", "dev", ifname)
	return err
}
