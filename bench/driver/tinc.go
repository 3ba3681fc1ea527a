package driver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"weft/bench/lab"
	"weft/internal/nettest"
)

// tinc is the tinc daemon in router mode, from the distribution's package.
type tinc struct {
	program, version string
}

// Settings of tinc.
const (
	tincMTU = 1400
	tincIf  = "tinc0"
)

// Name implements Driver.
func (*tinc) Name() string { return "tinc" }

// Summary implements Driver.
func (*tinc) Summary() string {
	return "tinc in router mode, a layer 3 mesh in userspace, with its default cipher"
}

// Prepare implements Driver.
func (t *tinc) Prepare(ctx context.Context, tools *Tools) (err error) {
	if t.program, err = tools.systemTool(ctx, "tincd", "tinc"); err != nil {
		return err
	}
	t.version = firstLine(ctx, t.program, "--version")
	return nil
}

// Up implements Driver.
func (t *tinc) Up(ctx context.Context, l *lab.Lab) (*Overlay, error) {
	o := &Overlay{}
	descriptions := make([]string, len(l.Ends))
	for i, h := range l.Ends {
		var err error
		if descriptions[i], err = t.describe(ctx, h, i); err != nil {
			return o, err
		}
	}
	for i, h := range l.Ends {
		for j, other := range l.Ends {
			if err := os.WriteFile(filepath.Join(h.Dir(), "tinc", "hosts", other.Label()), []byte(descriptions[j]), 0o600); err != nil {
				return o, fmt.Errorf("driver: %w", err)
			}
		}
		dir := filepath.Join(h.Dir(), "tinc")
		p, err := h.Start(nettest.ProcessConfig{Name: "tincd", Argv: []string{
			t.program, "-c", dir, "--pidfile", filepath.Join(dir, "pid"), "-D", "-d1"}})
		if err != nil {
			return o, err
		}
		o.Daemons = append(o.Daemons, p)
		if err := tunnelAddr(ctx, o, h, podAddr(i), tincIf, tincMTU); err != nil {
			return o, err
		}
		o.Ends = append(o.Ends, lab.End{Space: h.Space, Addr: podAddr(i)})
	}
	o.Facts.Version, o.Facts.MTU, o.Facts.Ends = t.version, tincMTU, betweenHosts
	o.Facts.Encrypted, o.Facts.Cipher = true, "its default, aes-256-cbc with sha256"
	o.Facts.Tuned = []string{fmt.Sprintf("MTU %d instead of 1500, so that nothing is fragmented", tincMTU)}
	return o, nil
}

// describe creates a node's folder with its keys, and returns the host file that the others need.
func (t *tinc) describe(ctx context.Context, h *nettest.Host, i int) (string, error) {
	dir := filepath.Join(h.Dir(), "tinc")
	if err := os.MkdirAll(filepath.Join(dir, "hosts"), 0o700); err != nil {
		return "", fmt.Errorf("driver: %w", err)
	}
	conf := fmt.Sprintf("Name = %s\nMode = router\nAddressFamily = ipv4\nInterface = %s\n", h.Label(), tincIf)
	for _, other := range h.Lab().Hosts() {
		// Of each pair, the host with the later name dials.
		if other.Label() < h.Label() {
			conf += "ConnectTo = " + other.Label() + "\n"
		}
	}
	self := filepath.Join(dir, "hosts", h.Label())
	files := map[string]string{
		filepath.Join(dir, "tinc.conf"): conf,
		self:                            fmt.Sprintf("Address = %s\nSubnet = %s/32\n", h.Addr(), podAddr(i)),
	}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("driver: %w", err)
		}
	}
	// tincd asks for the names of the key files; an empty line selects the default.
	cmd := h.Command(ctx, t.program, "-c", dir, "-K", "2048")
	cmd.Stdin = strings.NewReader("\n\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("driver: generating keys for tinc: %w: %s", err, lastLine(string(out)))
	}
	text, err := os.ReadFile(self)
	if err != nil {
		return "", fmt.Errorf("driver: %w", err)
	}
	return string(text), nil
}
