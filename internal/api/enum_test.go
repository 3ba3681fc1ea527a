package api_test

import (
	"encoding/json"
	"testing"

	"weft/internal/api"
	"weft/ipam"
	"weft/mesh"
	"weft/router/carrier"
	"weft/router/session"
)

// TestEnumerationsAreThoseOfTheEngines: the daemon converts the states of its engines to those of the API.
func TestEnumerationsAreThoseOfTheEngines(t *testing.T) {
	for engine, want := range map[string]string{
		mesh.StateAlive.String():          string(api.PeerAlive),
		mesh.StateDead.String():           string(api.PeerDead),
		mesh.StateLeft.String():           string(api.PeerLeft),
		string(carrier.Userspace):         string(api.CarrierUserspace),
		string(carrier.WireGuard):         string(api.CarrierWireGuard),
		string(carrier.VXLAN):             string(api.CarrierVXLAN),
		session.AES256GCM.String():        string(api.CipherAES256GCM),
		session.ChaCha20Poly1305.String(): string(api.CipherChaCha20Poly1305),
		string(ipam.Idle):                 string(api.IPAMIdle),
		string(ipam.Waiting):              string(api.IPAMWaiting),
		string(ipam.Ready):                string(api.IPAMReady),
	} {
		if engine != want {
			t.Errorf("the engine has %q, the API %q", engine, want)
		}
	}
}

// noKernel is the end of a peer of which the kernel has carried nothing.
const noKernel = `"kernel":{"rx_frames":0,"rx_bytes":0,"tx_frames":0,"tx_bytes":0},"drops":null}`

// TestDocuments compares the JSON of documents that contain enumerations, byte by byte.
func TestDocuments(t *testing.T) {
	for _, tt := range []struct {
		name string
		doc  any
		want string
	}{
		{"peer", api.Peer{
			State: api.PeerAlive, Link: api.LinkRelay, Datapath: api.DatapathUserspace, Encrypted: true, Cipher: api.CipherAES256GCM,
		},
			`{"id":"","name":"","addr":"","state":"alive","self":false,"link":"relay","via":"","datapath":"userspace","carrier":"",` +
				`"encrypted":true,"cipher":"aes-256-gcm","mtu":0,"rtt_ms":0,"tx_bytes":0,"rx_bytes":0,"tx_frames":0,"rx_frames":0,` + noKernel},
		{"no peer", api.Peer{State: api.PeerLeft, Link: api.LinkNone},
			`{"id":"","name":"","addr":"","state":"left","self":false,"link":"none","via":"","datapath":"","carrier":"","encrypted":false,` +
				`"cipher":"","mtu":0,"rtt_ms":0,"tx_bytes":0,"rx_bytes":0,"tx_frames":0,"rx_frames":0,` + noKernel},
		{"direct peer", api.Peer{
			State: api.PeerDead, Link: api.LinkDirect, Datapath: api.DatapathKernel, Carrier: api.CarrierVXLAN, Cipher: api.CipherChaCha20Poly1305,
		},
			`{"id":"","name":"","addr":"","state":"dead","self":false,"link":"direct","via":"","datapath":"kernel","carrier":"vxlan",` +
				`"encrypted":false,"cipher":"chacha20-poly1305","mtu":0,"rtt_ms":0,"tx_bytes":0,"rx_bytes":0,"tx_frames":0,"rx_frames":0,` + noKernel},
		{"status", api.Status{Datapath: api.DatapathMixed, Peers: map[api.PeerState]int{api.PeerDead: 1, api.PeerAlive: 2}, IPAM: api.IPAMReady},
			`{"version":"","id":"","name":"","ready":false,"range":null,"bridge":"","tap":"","mtu":0,"advertise":"",` +
				`"dns_domain":"","dns":false,"encrypted":false,` +
				`"secrets":0,"secrets_droppable":false,"network":"","datapath":"mixed","offload":null,` +
				`"queues":0,"peers":{"alive":2,"dead":1},"targets":null,` +
				`"ipam":"ready","garbage_freed":0,"exposed":null,"inward":"","fdb":0,"drops":null,"relayed":0,` +
				`"neighbors":{"answered":0,"directed":0,"own":0,"flooded":0},"guard":{"mode":"","bound":0,"open":0,"dropped":null},` +
				`"since":"0001-01-01T00:00:00Z","conditions":null,"warnings":null}`},
		{"address space", api.IPAM{State: api.IPAMWaiting}, `{"state":"waiting","waiting_for":"","ranges":null}`},
		{"idle address space", api.IPAM{State: api.IPAMIdle}, `{"state":"idle","waiting_for":"","ranges":null}`},
		{"checks", []api.Check{{Result: api.CheckOK}, {Result: api.CheckWarn}, {Result: api.CheckFail}, {Result: api.CheckUnknown, Remedy: "x"}},
			`[{"check":"","result":"ok","detail":""},{"check":"","result":"warn","detail":""},{"check":"","result":"fail","detail":""},` +
				`{"check":"","result":"unknown","detail":"","mend":"x"}]`},
	} {
		got, err := json.Marshal(tt.doc)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}
