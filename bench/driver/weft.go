package driver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"weft/bench/lab"
	"weft/internal/nettest/cluster"
)

// weft is this project's overlay in one of its modes, from pod to pod.
type weft struct {
	Config
	name, summary string
	args          []string
	cipher        string     // empty: plain
	path          string     // the datapath that the peers must use; empty: userspace
	carrier       string     // that the peers must use; empty: any of the datapath
	tunnel        *wireguard // gives each node a device of WireGuard; nil: none
}

// Name implements Driver.
func (w *weft) Name() string { return w.name }

// Summary implements Driver.
func (w *weft) Summary() string { return w.summary }

// Prepare implements Driver.
func (w *weft) Prepare(ctx context.Context, t *Tools) error {
	if _, err := os.Stat(filepath.Join(w.Bin, "weft")); err != nil {
		return fmt.Errorf("driver: %w (run make build)", err)
	}
	if w.tunnel != nil {
		return w.tunnel.Prepare(ctx, t)
	}
	return nil
}

// Up implements Driver.
func (w *weft) Up(ctx context.Context, l *lab.Lab) (*Overlay, error) {
	o := &Overlay{}
	args, err := w.arguments(ctx, l)
	if err != nil {
		return o, err
	}
	var nodes []*cluster.Node
	for i, h := range l.Ends {
		n := cluster.NewNode(h, w.Bin)
		flags := append([]string{}, args...)
		if w.tunnel != nil {
			device, socket, err := w.tunnel.start(o, h, i)
			if err != nil {
				return o, err
			}
			if err := o.until(ctx, func(context.Context) error { return listens(socket) }); err != nil {
				return o, err
			}
			flags = append(flags, "--wireguard-device", device)
		}
		if err := n.Up(append(flags, others(l, i)...)...); err != nil {
			return o, err
		}
		nodes = append(nodes, n)
		o.Daemons = append(o.Daemons, n.Process())
	}
	for _, n := range nodes {
		if err := w.attach(ctx, o, n); err != nil {
			return o, err
		}
	}
	if err := o.Ready(ctx); err != nil {
		return o, err
	}
	return o, w.verify(ctx, o, nodes)
}

// arguments returns the flags of "weft up", and writes the secret file that they name.
func (w *weft) arguments(ctx context.Context, l *lab.Lab) ([]string, error) {
	args := append([]string{}, w.args...)
	if w.cipher != "" {
		secret, err := cluster.GenerateSecret(ctx, w.Bin)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		file := filepath.Join(l.Dir(), "secret")
		if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
			return nil, fmt.Errorf("driver: %w", err)
		}
		args = append(args, "--secret-file", file, "--cipher", w.cipher)
	}
	return append(args, w.WeftArgs...), nil
}

// others returns the addresses of all ends but the i-th.
func others(l *lab.Lab, i int) []string {
	var addrs []string
	for j, h := range l.Ends {
		if j != i {
			addrs = append(addrs, h.Addr().String())
		}
	}
	return addrs
}

// attach waits until a node is ready and attaches a pod to it.
func (w *weft) attach(ctx context.Context, o *Overlay, n *cluster.Node) error {
	pod, err := n.AddPod("pod")
	if err != nil {
		return err
	}
	err = o.until(ctx, func(ctx context.Context) error {
		_, err := n.Do(ctx, "wait", "--for", "ready", "--timeout", "1s")
		return err
	})
	if err != nil {
		return err
	}
	addrs, err := n.Attach(ctx, pod)
	if err != nil {
		return err
	}
	o.Ends = append(o.Ends, lab.End{Space: pod.Space, Addr: addrs[0]})
	return nil
}

// verify waits until all nodes use the expected datapath and cipher for every peer, and sets the facts.
func (w *weft) verify(ctx context.Context, o *Overlay, nodes []*cluster.Node) error {
	want := w.path
	if want == "" {
		want = "userspace"
	}
	var status struct {
		Version string   `json:"version"`
		MTU     int      `json:"mtu"`
		Offload []string `json:"offload"`
	}
	if err := nodes[0].Query(ctx, &status, "status"); err != nil {
		return err
	}
	for i := range nodes {
		for _, earlier := range o.Ends[:i] { // a session starts with the first frame
			if err := o.reach(ctx, o.Ends[i], earlier); err != nil {
				return err
			}
		}
	}
	for _, n := range nodes {
		if err := o.until(ctx, func(ctx context.Context) error { return w.checkPeers(ctx, n, want) }); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	o.Facts.Version, o.Facts.MTU, o.Facts.Ends = status.Version, status.MTU, betweenPods
	o.Facts.Encrypted, o.Facts.Cipher = w.cipher != "", w.cipher
	o.Facts.Tuned = append(o.Facts.Tuned, "flags: "+strings.Join(append(append([]string{}, w.args...), w.WeftArgs...), " "),
		"offloads in use: "+strings.Join(append([]string{}, orNone(status.Offload)...), " "))
	return nil
}

func orNone(list []string) []string {
	if len(list) == 0 {
		return []string{"none"}
	}
	return list
}

// checkPeers returns an error if n uses another datapath or cipher for a peer than expected.
func (w *weft) checkPeers(ctx context.Context, n *cluster.Node, path string) error {
	var peers []struct {
		Name      string `json:"name"`
		Self      bool   `json:"self"`
		Datapath  string `json:"datapath"`
		Carrier   string `json:"carrier"`
		Encrypted bool   `json:"encrypted"`
		Cipher    string `json:"cipher"`
	}
	if err := n.Query(ctx, &peers, "peers"); err != nil {
		return err
	}
	for _, p := range peers {
		if p.Self {
			continue
		}
		if p.Datapath != path || p.Encrypted != (w.cipher != "") || p.Cipher != w.cipher {
			return fmt.Errorf("driver: peer %s is carried by %s, cipher %q, not by %s, cipher %q", p.Name, p.Datapath, p.Cipher, path, w.cipher)
		}
		if w.carrier != "" && p.Carrier != w.carrier {
			return fmt.Errorf("driver: peer %s is carried by %s, not by %s", p.Name, p.Carrier, w.carrier)
		}
	}
	return nil
}

// WeftVersion returns the version of the weft program in the folder bin, or "unknown".
func WeftVersion(ctx context.Context, bin string) string {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "weft"), "version").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "weft ")
}
