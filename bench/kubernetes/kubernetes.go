// Package kubernetes measures weft-kube in a large cluster: a real weft-kube with the host's nftables in a network namespace, and an API
// server and a daemon that this process makes up.
package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"weft/bench/meter"
	"weft/bench/sample"
	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/leases/holder"
	"weft/internal/nettest"
)

// Options configure Run.
type Options struct {
	// Programs are paths of weft-kube. The first is the baseline of the ratios.
	Programs []string
	// Plugin is the path of weft-cni.
	Plugin string
	// Nodes, Pods, Policies and Local are the size of the cluster; Local of the pods are on the measured node.
	Nodes, Pods, Policies, Local int
	Rounds                       int
	// Rate is the number of changes of pods in the cluster each second, Window how long they go on for each measurement.
	Rate   int
	Window time.Duration
}

// Result has the figures of one program, one value a round.
type Result struct {
	Program string
	Values  map[string][]float64 // by the name of the figure
	// Requests are those of one start, in all of the last round.
	Requests string
}

// Figures are the names of what is measured, in the order of the table.
var Figures = []string{"start, s", "memory, MiB", "highest memory, MiB", "CPU at rest, %", "CPU with changes, %",
	"rules of a pod, median ms", "rules of a pod, p99 ms", "label of 1,000 pods, s", "received at the start, MiB"}

// Run measures the programs in turn, and prints a line for each to progress.
func Run(ctx context.Context, o Options, progress io.Writer) ([]Result, error) {
	results := make([]Result, len(o.Programs))
	for i, p := range o.Programs {
		results[i] = Result{Program: p, Values: map[string][]float64{}}
	}
	for round := range o.Rounds {
		for i := range results {
			values, requests, err := measure(ctx, o, o.Programs[i])
			if err != nil {
				return results, fmt.Errorf("kubernetes: %s: %w", o.Programs[i], err)
			}
			_, _ = fmt.Fprintf(progress, "round %d: %s: %v\n  requests: %s\n", round+1, o.Programs[i], values, requests)
			for name, v := range values {
				results[i].Values[name] = append(results[i].Values[name], v)
			}
			results[i].Requests = requests
		}
	}
	return results, nil
}

// run is one start of a program.
type run struct {
	o       Options
	lab     *nettest.Lab
	host    *nettest.Host
	server  *server
	web     *http.Server
	daemon  *daemon
	process *nettest.Process
	runDir  string
	socket  string // of weft-kube, for admissions
	serial  int
}

// measure starts a program in a fresh namespace and returns its figures.
func measure(ctx context.Context, o Options, program string) (values map[string]float64, requests string, err error) {
	r, err := start(ctx, o, program)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	values = map[string]float64{}
	began := time.Now()
	if err := r.until(ctx, 3*time.Minute, r.ready); err != nil {
		return nil, "", fmt.Errorf("%w\n%s", err, r.process.Logs())
	}
	values["start, s"] = time.Since(began).Seconds()
	requests = sortedCounts(r.server.counts())
	values["received at the start, MiB"] = float64(r.server.bytes.Load()) / (1 << 20)
	if err := wait(ctx, 10*time.Second); err != nil {
		return nil, "", err
	}
	if values["CPU at rest, %"], err = r.cpu(ctx, 0); err != nil {
		return nil, "", err
	}
	if values["CPU with changes, %"], err = r.cpu(ctx, o.Rate); err != nil {
		return nil, "", err
	}
	if err := r.admissions(ctx, values); err != nil {
		return nil, "", err
	}
	if values["label of 1,000 pods, s"], err = r.relabel(ctx); err != nil {
		return nil, "", err
	}
	if err := wait(ctx, 5*time.Second); err != nil {
		return nil, "", err
	}
	resident, highest, err := residentMemory(r.process.Pid())
	if err != nil {
		return nil, "", err
	}
	values["memory, MiB"], values["highest memory, MiB"] = resident, highest
	return values, requests, nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// start starts a program, with its API server and its daemon.
func start(ctx context.Context, o Options, program string) (r *run, err error) {
	r = &run{o: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.stop())
		}
	}()
	if r.lab, err = nettest.New(nettest.Config{}); err != nil {
		return r, err
	}
	if r.host, err = r.lab.AddHost("node"); err != nil {
		return r, err
	}
	c := &cluster{nodes: o.Nodes, pods: o.Pods, policies: o.Policies, local: o.Local, started: time.Now().Add(-time.Hour)}
	r.server = newServer(c)
	var l net.Listener
	if err := r.host.Do(func() (err error) { l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:8001"); return err }); err != nil {
		return r, err
	}
	r.web = &http.Server{Handler: r.server, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.web.Serve(l) }()
	if r.daemon, err = startDaemon(r.host.Socket(), c); err != nil {
		return r, err
	}
	dir := r.host.Dir()
	config := filepath.Join(dir, "kubeconfig")
	text := `{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: "http://127.0.0.1:8001"}}],
contexts: [{name: c, context: {cluster: c}}], current-context: c}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return r, err
	}
	for _, sub := range []string{"bin", "conf"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return r, err
		}
	}
	if r.runDir, err = os.MkdirTemp("/dev/shm", "weft-bench-"); err != nil { // in memory, as /run is
		return r, err
	}
	r.socket = filepath.Join(r.runDir, "kube.sock")
	if err := r.writeAttachments(); err != nil {
		return r, err
	}
	plugin, err := filepath.Abs(o.Plugin)
	if err != nil {
		return r, err
	}
	if program, err = filepath.Abs(program); err != nil {
		return r, err
	}
	r.process, err = r.host.Start(nettest.ProcessConfig{Argv: []string{
		program, "run", "--node-name", nodeName(0), "--kubeconfig", config, "--state-dir", filepath.Join(dir, "state"),
		"--run-dir", r.runDir, "--socket", r.host.Socket(), "--plugin", plugin,
		"--bin-dir", filepath.Join(dir, "bin"), "--conf-dir", filepath.Join(dir, "conf"),
	}})
	return r, err
}

func (r *run) stop() error {
	var errs []error
	if r.process != nil {
		errs = append(errs, r.process.Stop(10*time.Second))
	}
	if r.daemon != nil {
		errs = append(errs, r.daemon.Close())
	}
	if r.web != nil {
		errs = append(errs, r.web.Close())
	}
	if r.lab != nil {
		errs = append(errs, r.lab.Close())
	}
	if r.runDir != "" {
		errs = append(errs, os.RemoveAll(r.runDir))
	}
	return errors.Join(errs...)
}

// until calls f until it returns nil.
func (r *run) until(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-r.process.Done():
			return fmt.Errorf("the program has ended: %s", r.process.Logs())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ready returns nil when the policies are in force.
func (r *run) ready(ctx context.Context) error {
	if !r.server.watched() {
		return errors.New("it does not watch the cluster yet")
	}
	return r.call(ctx, http.MethodGet, "/v1/ready", nil)
}

// call sends a request to weft-kube as the plugin does.
func (r *run) call(ctx context.Context, method, path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://weft-kube"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return err
}

// admission returns the request of the plugin for a pod.
func admission(p *corev1.Pod, ip netip.Addr) api.Admission {
	return api.Admission{
		Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), IPs: []netip.Addr{ip}, MAC: ether.FromIP(ip),
		Owner: holder.ForContainer("weft", strings.ReplaceAll(string(p.UID), "-", ""), "eth0").String(),
	}
}

// writeAttachments writes the file with the pods of this node that the plugin has announced to an earlier weft-kube.
func (r *run) writeAttachments() error {
	var list []map[string]any
	for i := range r.o.Local {
		in := admission(r.server.cluster.pod(i), podAddr(i))
		link, _ := holder.Parse(in.Owner).HostLink()
		list = append(list, map[string]any{
			"Namespace": in.Namespace, "Name": in.Name, "UID": in.UID, "Owner": in.Owner, "IPs": in.IPs, "MAC": in.MAC, "Link": link,
		})
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.runDir, "attachments.json"), text, 0o600)
}

// cpu returns the CPU time that the program and its children use while pods change at a rate, in percent of a core.
func (r *run) cpu(ctx context.Context, rate int) (float64, error) {
	before, err := meter.CPUWithChildren(r.process.Pid())
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := r.change(ctx, rate); err != nil {
		return 0, err
	}
	after, err := meter.CPUWithChildren(r.process.Pid())
	return 100 * (after - before).Seconds() / time.Since(began).Seconds(), err
}

// nodeReports is the time between two reports of the status of a node.
const nodeReports = 5 * time.Minute

// change makes a number of changes of pods of other nodes each second, for the window: half of them start, half end. The nodes report
// their status all the time.
func (r *run) change(ctx context.Context, rate int) error {
	ctx, cancel := context.WithTimeout(ctx, r.o.Window)
	defer cancel()
	reports := time.NewTicker(nodeReports / time.Duration(r.o.Nodes))
	defer reports.Stop()
	pods := time.NewTicker(time.Second / time.Duration(max(rate, 1)))
	defer pods.Stop()
	node := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-reports.C:
			node = 1 + (node+1)%(r.o.Nodes-1)
			n := r.server.cluster.node(node)
			n.Status.Conditions[0].LastHeartbeatTime = metav1.Now()
			r.server.send("nodes", n.Name, watch.Modified, n)
		case <-pods.C:
			if rate == 0 {
				continue
			}
			i := r.o.Local + (r.serial*7919)%(r.o.Pods-r.o.Local)
			if r.serial%2 == 0 {
				r.server.send("pods", podKey(i), watch.Deleted, r.server.cluster.pod(i))
			} else {
				p := r.server.cluster.pod(i)
				p.Name += "-again"
				p.Status.PodIP = netip.AddrFrom4([4]byte{10, 60, byte(r.serial >> 8), byte(r.serial)}).String()
				p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
				r.server.send("pods", podKey(i)+"-again", watch.Added, p)
			}
			r.serial++
		}
	}
}

// admitted is the number of pods that start in turn, and are timed; fewer where that takes longer than admissionTime.
const (
	admitted      = 300
	admissionTime = 40 * time.Second
)

// admissions starts pods on the node while the cluster changes, and measures the time until their rules are in force.
func (r *run) admissions(ctx context.Context, values map[string]float64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			_ = r.change(ctx, r.o.Rate)
		}
	}()
	var times []float64
	end := time.Now().Add(admissionTime)
	for n := 0; n < admitted && time.Now().Before(end); n++ {
		p := r.server.cluster.pod((n * 31) % r.o.Pods)
		p.Name, p.UID = fmt.Sprint("new-", n), uid(9, n)
		p.Spec.NodeName, p.Status = nodeName(0), corev1.PodStatus{Phase: corev1.PodPending}
		key := p.Namespace + "/" + p.Name
		r.server.send("pods", key, watch.Added, p)
		ip := netip.AddrFrom4([4]byte{10, 70, byte(n >> 8), byte(n)})
		if err := wait(ctx, 50*time.Millisecond); err != nil { // the kubelet pulls volumes and makes a sandbox
			return err
		}
		began := time.Now()
		if err := r.call(ctx, http.MethodPut, "/v1/pods", admission(p, ip)); err != nil {
			return fmt.Errorf("admission: %w\n%s", err, r.process.Logs())
		}
		times = append(times, float64(time.Since(began).Microseconds())/1000)
		running := p.DeepCopy()
		running.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip.String(), PodIPs: []corev1.PodIP{{IP: ip.String()}}}
		r.server.send("pods", key, watch.Modified, running)
	}
	values["rules of a pod, median ms"] = sample.Quantile(times, 0.5)
	values["rules of a pod, p99 ms"] = sample.Quantile(times, 0.99)
	return nil
}

// relabeled is the number of pods that get another label at once.
const relabeled = 1000

// relabel changes a label of many pods at once so that no policy selects them as peers any more, and measures the time until the sets
// of addresses in the kernel lack them.
func (r *run) relabel(ctx context.Context) (float64, error) {
	before, err := r.elements()
	if err != nil {
		return 0, err
	}
	// Pods that policies of this node allow as peers. Sets that select by team hold their addresses as well, and keep them.
	lost := 0
	for i := 0; i < r.o.Pods && lost < relabeled; i++ {
		if i/spaces%apps != 1 || i%spaces >= r.o.Local {
			continue
		}
		p := r.server.cluster.pod(i)
		p.Labels["app"] = "none"
		r.server.send("pods", podKey(i), watch.Modified, p)
		lost++
	}
	began := time.Now()
	last, same := before, time.Now()
	for {
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return 0, err
		}
		now, err := r.elements()
		if err != nil {
			continue // the table changed while it was read
		}
		if now != last {
			last, same = now, time.Now()
		}
		switch {
		case now < before && time.Since(same) > 3*time.Second:
			return same.Sub(began).Seconds(), nil
		case time.Since(began) > time.Minute:
			return 0, fmt.Errorf("the rules did not follow %d changed labels: %d elements, as before", lost, now)
		}
	}
}

// elements returns the number of elements in all sets of the packet filter that policies select.
func (r *run) elements() (n int, err error) {
	err = r.host.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "weft-policy"}
		sets, err := conn.GetSets(table)
		if err != nil {
			return err
		}
		sets = slices.DeleteFunc(sets, func(s *nftables.Set) bool { return !strings.HasPrefix(s.Name, "s") || s.Interval || s.Anonymous })
		for _, s := range sets {
			list, err := conn.GetSetElements(s)
			if err != nil {
				return err
			}
			n += len(list)
		}
		return nil
	})
	return n, err
}

// residentMemory returns the memory of a process and its highest one so far, in MiB.
func residentMemory(pid int) (now, highest float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			now = kib / 1024
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kib); n == 1 {
			highest = kib / 1024
		}
	}
	return now, highest, nil
}
