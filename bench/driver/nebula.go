package driver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"weft/bench/lab"
	"weft/internal/nettest"
)

// nebula is Slack's overlay, a layer 3 tunnel in userspace.
type nebula struct {
	program, cert string
}

// Version and settings of nebula. The version is the newest that builds with this module's Go version from public modules.
const (
	nebulaPackage = "github.com/slackhq/nebula/cmd/"
	nebulaVersion = "v1.11.1"
	nebulaMTU     = nettest.DefaultMTU - 60 // outer IP and UDP 28, nebula's header 16, the tag 16
	nebulaPort    = 4242
	nebulaIf      = "nebula1"
)

// Name implements Driver.
func (*nebula) Name() string { return "nebula" }

// Summary implements Driver.
func (*nebula) Summary() string { return "nebula, a layer 3 overlay in userspace, AES-256-GCM" }

// Prepare implements Driver.
func (n *nebula) Prepare(ctx context.Context, t *Tools) (err error) {
	if n.program, err = t.goTool(ctx, "nebula", nebulaPackage+"nebula", nebulaVersion); err != nil {
		return err
	}
	n.cert, err = t.goTool(ctx, "nebula-cert", nebulaPackage+"nebula-cert", nebulaVersion)
	return err
}

// Up implements Driver.
func (n *nebula) Up(ctx context.Context, l *lab.Lab) (*Overlay, error) {
	o := &Overlay{}
	if err := n.certs(ctx, l); err != nil {
		return o, err
	}
	for i, h := range l.Ends {
		file := filepath.Join(h.Dir(), "nebula.yml")
		if err := os.WriteFile(file, []byte(n.config(l, i)), 0o600); err != nil {
			return o, fmt.Errorf("driver: %w", err)
		}
		p, err := h.Start(nettest.ProcessConfig{Name: "nebula", Argv: []string{n.program, "-config", file}})
		if err != nil {
			return o, err
		}
		o.Daemons = append(o.Daemons, p)
		o.Ends = append(o.Ends, lab.End{Space: h.Space, Addr: podAddr(i)})
	}
	o.Facts.Version, o.Facts.MTU, o.Facts.Ends = nebulaVersion, nebulaMTU, betweenHosts
	o.Facts.Encrypted, o.Facts.Cipher = true, "aes-256-gcm"
	o.Facts.Tuned = []string{
		fmt.Sprintf("tun.mtu %d instead of 1300", nebulaMTU), "listen.read_buffer and write_buffer 10 MB as in its example",
	}
	return o, nil
}

// certs creates a certificate authority, and a certificate for each node.
func (n *nebula) certs(ctx context.Context, l *lab.Lab) error {
	commands := [][]string{{"ca", "-name", "bench", "-out-crt", "ca.crt", "-out-key", "ca.key"}}
	for i, h := range l.Ends {
		commands = append(commands, []string{"sign", "-name", h.Label(), "-networks", podAddr(i).String() + "/24",
			"-out-crt", h.Label() + ".crt", "-out-key", h.Label() + ".key"})
	}
	for _, args := range commands {
		cmd := exec.CommandContext(ctx, n.cert, args...)
		cmd.Dir = l.Dir()
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("driver: nebula-cert %s: %w: %s", args[0], err, lastLine(string(out)))
		}
	}
	return nil
}

// config returns the configuration of the i-th node: the others have fixed addresses, and the firewall accepts everything.
func (*nebula) config(l *lab.Lab, i int) string {
	var s strings.Builder
	fmt.Fprintf(&s, `pki: {ca: %[1]s/ca.crt, cert: %[1]s/%[2]s.crt, key: %[1]s/%[2]s.key}
lighthouse: {am_lighthouse: false, hosts: []}
listen: {host: 0.0.0.0, port: %[3]d, read_buffer: 10485760, write_buffer: 10485760}
tun: {dev: %[4]s, mtu: %[5]d}
logging: {level: warning, format: text}
firewall:
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
static_host_map:
`, l.Dir(), l.Ends[i].Label(), nebulaPort, nebulaIf, nebulaMTU)
	for j, h := range l.Ends {
		if j != i {
			fmt.Fprintf(&s, "  %s: [\"%s:%d\"]\n", podAddr(j), h.Addr(), nebulaPort)
		}
	}
	return s.String()
}
