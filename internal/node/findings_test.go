package node

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/health"
	"weft/internal/health/healthtest"
	"weft/internal/peer"
	"weft/internal/target"
	"weft/ipam"
	"weft/mesh"
	"weft/mesh/mismatch"
)

func TestClockFindings(t *testing.T) {
	node := func(name string, skew time.Duration) mesh.Member {
		return mesh.Member{Name: name, ID: peer.ID{name[0]}, State: mesh.StateAlive, RTT: time.Millisecond, Skew: skew}
	}
	healthtest.Want(t, "all well", clockFindings([]mesh.Member{node("a", time.Second), node("b", -maxSkew)}), "")
	healthtest.Want(t, "one wrong", clockFindings([]mesh.Member{node("a", 0), node("b", -37*time.Second)}), health.PeerClockSkew,
		"clock of node b", "37s behind the clock of this node", "NTP")
	healthtest.Want(t, "this one wrong", clockFindings([]mesh.Member{node("a", 62*time.Second), node("b", time.Minute)}), health.ClockSkew,
		"clock of this node is 1m2s behind the clocks of all other nodes")
	dead, unmeasured := node("c", time.Hour), node("d", time.Hour)
	dead.State, unmeasured.RTT = mesh.StateDead, 0
	healthtest.Want(t, "not known", clockFindings([]mesh.Member{dead, unmeasured}), "")
}

func TestSpaceFindings(t *testing.T) {
	status := func(owners ...ipam.Owner) ipam.Status {
		return ipam.Status{Ranges: []ipam.RangeStatus{{CIDR: netip.MustParsePrefix("10.32.0.0/24"), Owners: owners}}}
	}
	half := ipam.Owner{Addresses: 128, Free: 100, Reachable: true}
	away := ipam.Owner{Addresses: 128, Free: 128}
	little := ipam.Owner{Addresses: 128, Free: 12, Reachable: true}
	healthtest.Want(t, "not divided", spaceFindings(status()), "")
	healthtest.Want(t, "half", spaceFindings(status(half, little)), "")
	healthtest.Want(t, "nearly full", spaceFindings(status(little, little, away)), health.RangeFull,
		"10.32.0.0/24 is nearly full: 24 of 384", "weft ip list")
}

func TestTargetFindings(t *testing.T) {
	at := target.Target{Host: "b", Port: 6783}
	healthtest.Want(t, "joined", targetFindings([]mesh.TargetStatus{{Target: at}}), "")
	healthtest.Want(t, "refused", targetFindings([]mesh.TargetStatus{{Target: at, Err: errors.New("connection refused")}}),
		health.TargetUnreachable,
		"Target b:6783", "TCP and UDP port 6783 and UDP port 6784", "weft forget b:6783")
	healthtest.Want(t, "moved", targetFindings([]mesh.TargetStatus{{Target: at, Err: errors.New("connection refused"),
		Moved: mesh.Member{ID: peer.ID{1}, Name: "b", Addr: netip.MustParseAddr("192.0.2.9")}}}),
		health.TargetUnreachable, "node b, which was there, is at 192.0.2.9 now", "new address")
	healthtest.Want(t, "secret", targetFindings([]mesh.TargetStatus{{Target: at, Err: &mismatch.Error{Reason: mismatch.There}}}),
		health.TargetKeyMismatch)
	// memberlist keeps only the text of errors.
	healthtest.Want(t, "cluster", targetFindings([]mesh.TargetStatus{{Target: at,
		Err: errors.New("1 error: " + mesh.ErrClusterMismatch.Error())}}),
		health.TargetClusterMismatch, "another cluster")
}

// TestDomainFindings: a node with another domain is named, and one of a version that knows no domain has the default.
func TestDomainFindings(t *testing.T) {
	other := mesh.Member{
		Name: "b", ID: peer.ID{2}, Addr: netip.MustParseAddr("192.0.2.2"), State: mesh.StateAlive, DNSDomain: "pods.example.org",
	}
	older := mesh.Member{Name: "c", ID: peer.ID{3}, State: mesh.StateAlive}
	dead := other
	dead.State = mesh.StateDead
	c := clusterFindings{}
	healthtest.Want(t, "all alike", c.domainFindings([]mesh.Member{older, dead}), "")
	healthtest.Want(t, "another one", c.domainFindings([]mesh.Member{older, other}), health.DNSDomainMismatch,
		"Node b ("+other.ID.String()+" at 192.0.2.2) has --dns-domain pods.example.org, and this node weft.local")
	c.cfg.DNSDomain = "pods.example.org"
	healthtest.Want(t, "an older one", c.domainFindings([]mesh.Member{older, other}), health.DNSDomainMismatch,
		"Node c", "has --dns-domain weft.local, and this node pods.example.org")
	if publishedDomain("weft.local") != "" || publishedDomain("pods.example.org") != "pods.example.org" {
		t.Error("the default is published, or another domain is not")
	}
}

func TestDeadFindings(t *testing.T) {
	dead := mesh.Member{Name: "a", ID: peer.ID{1}, Addr: netip.MustParseAddr("192.0.2.1"), State: mesh.StateDead}
	owner := ipam.Status{Ranges: []ipam.RangeStatus{{Owners: []ipam.Owner{{ID: dead.ID, Addresses: 128}}}}}
	reclaim := "un \"weft reclaim " + dead.ID.String() + "\"."
	healthtest.Want(t, "alive", deadFindings([]mesh.Member{{Name: "b", State: mesh.StateAlive}}, owner, nil), "")
	healthtest.Want(t, "owns nothing", deadFindings([]mesh.Member{dead}, ipam.Status{}, nil), health.PeerDead,
		"at 192.0.2.1) is dead. Start it again.")
	healthtest.Want(t, "owns some", deadFindings([]mesh.Member{dead}, owner, nil), health.PeerDead, "it owns 128 addresses.",
		"Start it again, or if it will not return r"+reclaim)
	keptOut := map[netip.Addr]bool{dead.Addr: true}
	healthtest.Want(t, "kept out", deadFindings([]mesh.Member{dead}, owner, keptOut), health.PeerDead,
		"a node at its address is kept out; it owns 128", "Let it in again")
	for _, f := range deadFindings([]mesh.Member{dead}, owner, keptOut) {
		if strings.Contains(f.Remedy, "reclaim") {
			t.Errorf("a node that is kept out is to be reclaimed: %s", f.Remedy)
		}
	}
	next := mesh.Member{Name: "a", ID: peer.ID{2}, State: mesh.StateAlive}
	healthtest.Want(t, "replaced", deadFindings([]mesh.Member{dead, next}, owner, nil), health.PeerDead,
		"has replaced it; it owns 128", "R"+reclaim)
}

// TestReplacedNode: nothing is left of a dead node that was replaced and owns nothing.
func TestReplacedNode(t *testing.T) {
	dead := mesh.Member{Name: "a", ID: peer.ID{1}, State: mesh.StateDead}
	next := mesh.Member{Name: "a", ID: peer.ID{2}, State: mesh.StateAlive}
	healthtest.Want(t, "replaced", deadFindings([]mesh.Member{dead, next}, ipam.Status{}, nil), "")
}

func TestUnseenOwners(t *testing.T) {
	status := ipam.Status{Ranges: []ipam.RangeStatus{{
		CIDR: netip.MustParsePrefix("10.32.0.0/12"), Owners: []ipam.Owner{{ID: peer.ID{1}, Addresses: 5}, {ID: peer.ID{2},
			Reachable: true}, {ID: peer.ID{3}}},
	}}}
	members := []mesh.Member{{ID: peer.ID{3}, State: mesh.StateDead}} // reported as dead
	at := netip.MustParseAddrPort("192.0.2.1:6783")
	lastSeen := func(peer.ID) (netip.AddrPort, string) { return at, "a" }
	healthtest.Want(t, "unseen", unseenOwnerFindings(members, status, nil, lastSeen), health.OwnerUnseen,
		"Node a ("+peer.ID{1}.String()+", last at 192.0.2.1) owns 5 addresses of 10.32.0.0/12", "weft reclaim "+peer.ID{1}.String())
	keptOut := map[netip.Addr]bool{at.Addr(): true}
	healthtest.Want(t, "kept out", unseenOwnerFindings(members, status, keptOut, lastSeen), "")
	early := clusterFindings{started: time.Now()}
	healthtest.Want(t, "just started", early.unseenOwnerFindings(members, status, nil, time.Now()), "")
}
