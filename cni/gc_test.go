package cni_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"weft/internal/leases/holder"
	"weft/internal/podlink"
	"weft/internal/podlink/linktest"
)

func TestGC(t *testing.T) {
	b := newBench()
	keep, drop, gone := args(), args(), args()
	drop.IfName = "eth1"
	gone.ContainerID, gone.Netns = "c2", "/run/netns/c2"
	b.links.AddNetns(gone.Netns)
	for _, a := range []*skel.CmdArgs{keep, drop, gone} {
		b.add(t, a)
	}
	b.links.RemoveNetns(gone.Netns)
	others := []string{"cni/other/c1/eth0", "cni/net", "web", "c1/eth0"}
	for _, o := range others {
		b.daemon.leases[o] = []netip.Prefix{netip.MustParsePrefix("10.32.9.9/12")}
	}
	for range 2 {
		valid := `[{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c9", "ifname": "eth0"}]`
		if err := b.plugin.GC(args(`{"cni.dev/valid-attachments": ` + valid + `}`)); err != nil {
			t.Fatal(err)
		}
		want := append([]string{owner}, others...)
		slices.Sort(want)
		if diff := cmp.Diff(want, b.daemon.owners()); diff != "" {
			t.Errorf("owners (-want +got):\n%s", diff)
		}
		if got := b.links.HostLinks(); !slices.Equal(got, []string{podlink.HostLinkName(owner, "eth0")}) {
			t.Errorf("host links %v", got)
		}
	}
	b.links.Fail(linktest.OpDetach, syscall.EPERM)
	wantCode(t, "GC", b.plugin.GC(args()), types.ErrInternal)
	b.daemon.fail = errNoDaemon
	wantCode(t, "GC without a daemon", b.plugin.GC(args()), types.ErrTryAgainLater)
}

// TestGCSpares: GC keeps attachments that the list of the calling runtime cannot have, and logs what it does.
func TestGCSpares(t *testing.T) {
	for name, c := range map[string]struct {
		addedBy string
		running bool
		gone    bool // the namespace
		kept    bool
		says    string
	}{
		"its own, without a process":      {addedBy: runtime, says: "removed"},
		"its own, with a process":         {addedBy: runtime, running: true, kept: true, says: "a process runs"},
		"another's":                       {addedBy: "/usr/bin/podman", kept: true, says: "/usr/bin/podman"},
		"another's, with a process":       {addedBy: "/usr/bin/podman", running: true, kept: true, says: "a process runs"},
		"of an older version":             {kept: true, says: "unknown"},
		"another's, without a namespace":  {addedBy: "/usr/bin/podman", gone: true},
		"unknown, without a namespace":    {gone: true},
		"its own, without its namespaces": {addedBy: runtime, gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			b.plugin.Runtime = c.addedBy
			b.add(t, args())
			if c.running {
				b.links.Run(netns)
			}
			if c.gone {
				b.links.RemoveNetns(netns)
			}
			var log bytes.Buffer
			b.plugin.Runtime, b.plugin.Logger = runtime, slog.New(slog.NewTextHandler(&log, nil))
			if err := b.plugin.GC(args(`{"cni.dev/valid-attachments": []}`)); err != nil {
				t.Fatal(err)
			}
			if kept := len(b.daemon.owners()) == 1; kept != c.kept || kept != (len(b.links.HostLinks()) == 1) {
				t.Errorf("leases of %v, links %v", b.daemon.owners(), b.links.HostLinks())
			}
			if !strings.Contains(log.String(), c.says) || !strings.Contains(log.String(), owner) {
				t.Errorf("the log lacks %q and %s: %s", c.says, owner, &log)
			}
			if reasons := b.daemon.reasons; !c.kept && (len(reasons) != 1 || !strings.Contains(reasons[0], runtime)) {
				t.Errorf("reasons %q, want one with %s", reasons, runtime)
			}
		})
	}
}

// TestGCDelegated: the address manager gets a list that has the attachments of other runtimes, and the links of the others
// are removed.
func TestGCDelegated(t *testing.T) {
	b := newDelegated(t, `{"cniVersion": "1.1.0", "ips": [{"address": "172.30.0.5/16"}]}`)
	attach := func(runtime, id string) string {
		a := args(delegated)
		a.ContainerID, a.Netns, b.plugin.Runtime = id, "/run/netns/"+id, runtime
		b.links.AddNetns(a.Netns)
		b.add(t, a)
		return podlink.HostLinkName(holder.ForContainer("net", id, "eth0").String(), "eth0")
	}
	listed, lost, other := attach(runtime, "c1"), attach(runtime, "c2"), attach("/usr/bin/podman", "c3")
	b.plugin.Runtime = runtime
	valid := `{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}`
	if err := b.plugin.GC(args(delegated, valid)); err != nil {
		t.Fatal(err)
	}
	conf := types.PluginConf{}
	if err := json.Unmarshal(b.exec.conf, &conf); err != nil {
		t.Fatal(err)
	}
	want := []types.GCAttachment{{ContainerID: "c1", IfName: "eth0"}, {ContainerID: "c3", IfName: "eth0"}}
	if diff := cmp.Diff(want, conf.ValidAttachments); diff != "" {
		t.Errorf("list for the address manager (-want +got):\n%s", diff)
	}
	kept := []string{listed, other}
	slices.Sort(kept)
	if got := b.links.HostLinks(); !slices.Equal(got, kept) {
		t.Errorf("links %v, want %v without %s", got, kept, lost)
	}

	// A link of an older version does not say which container it is of.
	b.links.AddNetns("/run/netns/c4")
	old := podlink.Spec{Netns: "/run/netns/c4", Ifname: "eth0", HostName: "vweftold", Bridge: "weave", Origin: podlink.Origin{Delegated: true}}
	if _, err := b.links.Attach(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	b.exec.calls = nil
	if err := b.plugin.GC(args(delegated, valid)); err != nil || len(b.exec.calls) > 0 {
		t.Errorf("GC beside a link of an older version: %v, and the address manager was called for %v", err, b.exec.calls)
	}
}
