package vxlan

import (
	"crypto/rand"
	"encoding/binary"
)

// MaxVNI is the highest VNI: it has 24 bits (RFC 7348, section 5).
const MaxVNI = 1<<24 - 1

// wellKnownVNI is a VNI that attackers would try first, as it was the only one of earlier builds.
const wellKnownVNI = 6783

// RandomVNI returns an unpredictable VNI.
func RandomVNI() uint32 {
	for {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		if vni := binary.BigEndian.Uint32(b[:]) & MaxVNI; vni != 0 && vni != wellKnownVNI {
			return vni
		}
	}
}

// AgreeVNI returns the VNI that a node should use: the one that most nodes have, or the lowest of several such. published are those
// of the other members that are alive, and own is that of this node; 0 stands for a node without one. All nodes that know the same
// members come to the same result, and a node that joins does not change it. The result is 0 if no node has a VNI.
func AgreeVNI(own uint32, published []uint32) (vni uint32) {
	count := map[uint32]int{own: 1}
	for _, v := range published {
		count[v]++
	}
	delete(count, 0)
	for v, n := range count {
		if most := count[vni]; n > most || n == most && v < vni {
			vni = v
		}
	}
	return vni
}
