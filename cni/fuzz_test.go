package cni_test

import (
	"errors"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// FuzzAdd: for any input, ADD either returns an error of the specification and leaves nothing, or joins the pod, and DEL with the
// same input removes it.
func FuzzAdd(f *testing.F) {
	for _, conf := range []string{
		``, `null`, `{}`, `{"cniVersion": "1.1.0", "name": "net", "runtimeConfig": {"ips": ["10.32.0.7/12"], "mac": "02:00:00:00:00:01"}}`,
		`{"cniVersion": "0.3.1", "mtu": 1400, "hairpin": false, "args": {"cni": {"ips": ["fd32::1"]}}, "prevResult": {"cniVersion": "0.3.1"}}`,
	} {
		f.Add(conf, "IgnoreUnknown=1;IP=10.32.0.9/12,fd32::9/64;MAC=02:00:00:00:00:02")
		f.Add(conf, "IP=;=;")
	}
	f.Fuzz(func(t *testing.T, conf, env string) {
		b := newBench()
		a := &skel.CmdArgs{ContainerID: "c1", Netns: netns, IfName: "eth0", Args: env, StdinData: []byte(conf)}
		err := b.plugin.Add(a)
		var e *types.Error
		if err != nil && (!errors.As(err, &e) || e.Code == 0) {
			t.Errorf("ADD: %#v is not an error of CNI", err)
		}
		if err == nil {
			if err := b.plugin.Del(a); err != nil {
				t.Errorf("DEL: %v", err)
			}
		}
		if len(b.exec.calls) == 0 { // a delegated plugin has leases of its own
			b.wantNothing(t, "ADD or DEL")
		}
	})
}
