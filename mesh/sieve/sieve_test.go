package sieve

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
)

const (
	nameA = "0123456789abcdef@192.0.2.1:6783"
	nameB = "fedcba9876543210@[2001:db8::2]:6783"
)

var (
	addrA = netip.MustParseAddr("192.0.2.1").AsSlice()
	addrB = netip.MustParseAddr("2001:db8::2").AsSlice()
	vsn   = []uint8{1, 5, 2, 0, 0, 0}
)

func validPing() ping { return ping{1, nameB, addrA, 6783, nameA} }

func validAlive() alive { return alive{1, nameB, addrB, 6783, make([]byte, 100), vsn} }

func validState() nodeState { return nodeState{nameA, addrA, 6783, make([]byte, 100), 1 << 20, 3, vsn} }

func with[T any](v T, change func(*T)) T { change(&v); return v }

func TestPacket(t *testing.T) {
	aliveMessage := encode(t, kindAlive, validAlive())
	user := []byte{byte(kindUser), 1, 2, 3}
	for name, b := range map[string][]byte{
		"ping":               encode(t, kindPing, validPing()),
		"indirect ping":      encode(t, kindIndirectPing, indirectPing{200, addrB, 6783, nameB, true, addrA, 6783, nameA}),
		"ack":                encode(t, kindAck, ack{70000, []byte("12345678")}),
		"ack of a relay":     encode(t, kindAck, ack{300, nil}),
		"nack":               encode(t, kindNack, nack{1<<32 - 1}),
		"suspect":            encode(t, kindSuspect, accusation{7, nameA, nameB}),
		"dead":               encode(t, kindDead, accusation{7, nameA, nameA}),
		"alive":              aliveMessage,
		"mapped address":     encode(t, kindAlive, alive{1, nameA, mapped(addrA), 6783, nil, vsn}),
		"user":               user,
		"compound":           makeCompound(aliveMessage, user, aliveMessage),
		"summed":             summed(aliveMessage),
		"compound of a hash": summed(makeCompound(user)),
	} {
		if err := Packet(b, maxUint32); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPacketRefuses(t *testing.T) {
	message := encode(t, kindAlive, validAlive())
	changed := func(change func(*alive)) []byte { return encode(t, kindAlive, with(validAlive(), change)) }
	user := []byte{byte(kindUser), 1}
	wrongSum := summed(message)
	wrongSum[1]++
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":             {nil, errEmpty},
		"compressed":          {encode(t, kindCompressed, compressed{0, []byte{1}}), errKind},
		"encrypted":           {[]byte{byte(kindEncrypted), 0, 0, 0, 1, 1}, errKind},
		"labeled":             {append([]byte{244, 4}, "weft"...), errKind},
		"state in a packet":   {encode(t, kindPushPull, header{}), errKind},
		"error in a packet":   {encode(t, kindError, errorText{"x"}), errKind},
		"unknown kind":        {[]byte{14, 0}, errKind},
		"wrong checksum":      {wrongSum, errChecksum},
		"checksum cut short":  {wrongSum[:4], errChecksum},
		"checksum of another": {summed(summed(message)), errKind},
		"checksum of nothing": {summed(nil), errEmpty},
		"compound of nothing": {[]byte{byte(kindCompound), 0}, errCompound},
		"compound cut short":  {makeCompound(message, user)[:5], errCompound},
		"compound too short":  {makeCompound(message, user)[:len(message)+5], errCompound},
		"compound too long":   {append(makeCompound(message), 0), errTrailing},
		"nested compound":     {makeCompound(user, makeCompound(user)), errKind},
		"sum in a compound":   {makeCompound(summed(user)), errKind},
		"empty in a compound": {makeCompound(user, nil), errEmpty},
		"trailing byte":       {append(slices.Clone(message), 0), errTrailing},
		"incarnation 0":       {changed(func(a *alive) { a.Incarnation = 0 }), errValue},
		"port 0":              {changed(func(a *alive) { a.Port = 0 }), errValue},
		"another port":        {changed(func(a *alive) { a.Port = 1 }), errAddr},
		"another address":     {changed(func(a *alive) { a.Addr = addrA }), errAddr},
		"no address":          {changed(func(a *alive) { a.Addr = nil }), errAddr},
		"address of 5 bytes":  {changed(func(a *alive) { a.Addr = make([]byte, 5) }), errAddr},
		"long metadata":       {changed(func(a *alive) { a.Meta = make([]byte, maxMeta+1) }), errMeta},
		"no versions":         {changed(func(a *alive) { a.Vsn = nil }), errVersions},
		"5 versions":          {changed(func(a *alive) { a.Vsn = vsn[:5] }), errVersions},
		"7 versions":          {changed(func(a *alive) { a.Vsn = make([]uint8, 7) }), errVersions},
		"versions above ours": {changed(func(a *alive) { a.Vsn = []uint8{3, 5, 3, 0, 0, 0} }), errVersions},
		"delegate's versions": {changed(func(a *alive) { a.Vsn = []uint8{1, 5, 2, 1, 1, 1} }), errVersions},
		"name of another":     {changed(func(a *alive) { a.Node = "web-1" }), errName},
		"long name":           {changed(func(a *alive) { a.Node = string(make([]byte, 1000)) }), errName},
		"upper-case ID":       {changed(func(a *alive) { a.Node = "FEDCBA9876543210@[2001:db8::2]:6783" }), errName},
		"other spelling":      {changed(func(a *alive) { a.Node = "fedcba9876543210@[2001:db8:0::2]:6783" }), errName},
		"zone":                {changed(func(a *alive) { a.Node = "fedcba9876543210@[fe80::1%eth0]:6783" }), errName},
		"accuser's name":      {encode(t, kindDead, accusation{7, nameA, "x"}), errName},
		"ping without sender": {encode(t, kindPing, ping{SeqNo: 1, Node: nameA}), errEncoding},
		"ping of another":     {encode(t, kindPing, with(validPing(), func(p *ping) { p.SourceAddr = addrB })), errAddr},
		"ping of no node":     {encode(t, kindPing, with(validPing(), func(p *ping) { p.Node = "" })), errName},
		"another target":      {encode(t, kindIndirectPing, indirectPing{200, addrA, 6783, nameB, true, addrA, 6783, nameA}), errAddr},
		"long payload":        {encode(t, kindAck, ack{1, make([]byte, maxPayload+1)}), errPayload},
		"array for a map":     {[]byte{byte(kindNack), 0x91, 1}, errEncoding},
		"nil for a map":       {[]byte{byte(kindNack), 0xc0}, errEncoding},
		"long form":           {append([]byte{byte(kindNack), 0x81, 0xa5}, "SeqNo\xcd\x00\x01"...), errEncoding},
		"another field":       {append([]byte{byte(kindNack), 0x81, 0xa5}, "SeqNr\x01"...), errEncoding},
		"length of 4 GiB":     {append([]byte{byte(kindAck), 0x82, 0xa7}, "Payload\xdb\xff\xff\xff\xff"...), errPayload},
	} {
		if err := Packet(c.b, maxUint32); !errors.Is(err, c.want) || !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for n := range message {
		if Packet(message[:n], maxUint32) == nil {
			t.Errorf("the first %d bytes are accepted", n)
		}
	}
}

func TestStream(t *testing.T) {
	oneState := func(change func(*nodeState)) []byte {
		return encode(t, kindPushPull, header{1, 0, true}, with(validState(), change))
	}
	states := encode(t, kindPushPull, header{2, 4, true}, validState(), validState(), []byte("user"))
	for name, c := range map[string]struct {
		check func([]byte, uint32) error
		b     []byte
		want  error
	}{
		"states":            {Stream, states, nil},
		"states back":       {Reply, states, nil},
		"no state":          {Stream, encode(t, kindPushPull, header{}), nil},
		"ping":              {Stream, encode(t, kindPing, validPing()), nil},
		"ack":               {Reply, encode(t, kindAck, ack{1, nil}), nil},
		"error":             {Reply, encode(t, kindError, errorText{"failed to receive"}), nil},
		"user refused":      {Stream, encode(t, kindUser, userHeader{1}, []byte{1}), errKind},
		"ack unasked":       {Stream, encode(t, kindAck, ack{1, nil}), errKind},
		"ping back":         {Reply, encode(t, kindPing, validPing()), errKind},
		"alive":             {Stream, encode(t, kindAlive, validAlive()), errKind},
		"sealed nothing":    {Stream, []byte{byte(kindEncrypted), 0, 0, 0, 29}, errKind},
		"a million nodes":   {Stream, encode(t, kindPushPull, header{1 << 20, 0, true}), errValue},
		"65,536 nodes":      {Stream, encode(t, kindPushPull, header{1 << 16, 0, true}), errEncoding},
		"-1 nodes":          {Stream, encode(t, kindPushPull, header{-1, 0, true}), errEncoding},
		"one node less":     {Stream, encode(t, kindPushPull, header{1, 4, true}, validState(), validState(), []byte("user")), errUserState},
		"one node more":     {Stream, encode(t, kindPushPull, header{3, 4, true}, validState(), validState(), []byte("user")), errEncoding},
		"state of 20 MiB":   {Stream, encode(t, kindPushPull, header{0, 20 << 20, true}), errUserState},
		"state of 4":        {Stream, oneState(func(s *nodeState) { s.State = 4 }), errValue},
		"incarnation 0":     {Stream, oneState(func(s *nodeState) { s.Incarnation = 0 }), errValue},
		"nothing":           {Stream, nil, errEmpty},
		"no reply":          {Reply, nil, errEmpty},
		"long error":        {Reply, encode(t, kindError, errorText{string(make([]byte, maxError+1))}), errPayload},
		"compressed stream": {Stream, encode(t, kindCompressed, compressed{0, []byte{1}}), errKind},
	} {
		if err := c.check(c.b, maxUint32); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// mapped returns an IPv4 address in 16 bytes.
func mapped(v4 []byte) []byte { return append([]byte{10: 255, 11: 255}, v4...) }

func BenchmarkPacket(b *testing.B) {
	for name, message := range map[string][]byte{
		"ping":     encode(b, kindPing, validPing()),
		"alive":    encode(b, kindAlive, validAlive()),
		"compound": summed(makeCompound(encode(b, kindPing, validPing()), encode(b, kindAlive, validAlive()), make1000())),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(message)))
			for b.Loop() {
				if err := Packet(message, maxUint32); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func make1000() []byte { return append([]byte{byte(kindUser)}, make([]byte, 800)...) }

func BenchmarkStream(b *testing.B) {
	parts := []any{header{1000, 50000, true}}
	for range 1000 {
		parts = append(parts, validState())
	}
	message := encode(b, kindPushPull, append(parts, make([]byte, 50000))...)
	b.ReportAllocs()
	b.SetBytes(int64(len(message)))
	for b.Loop() {
		if err := Stream(message, maxUint32); err != nil {
			b.Fatal(err)
		}
	}
}

// TestIncarnationsCannotBeUsedUp: a node can refute the highest incarnation that passes, one second later.
func TestIncarnationsCannotBeUsedUp(t *testing.T) {
	now := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	highest := MaxIncarnation(now)
	dead := encode(t, kindDead, accusation{highest, validAlive().Node, validAlive().Node})
	refuted := validAlive()
	refuted.Incarnation = highest + 1
	state := validState()
	state.Incarnation = highest + 1
	for name, check := range map[string]func(at time.Time) error{
		"alive": func(at time.Time) error { return Packet(encode(t, kindAlive, refuted), MaxIncarnation(at)) },
		"state": func(at time.Time) error {
			return Stream(encode(t, kindPushPull, header{1, 0, true}, state), MaxIncarnation(at))
		},
	} {
		if err := check(now); !errors.Is(err, errValue) {
			t.Errorf("%s above the bound: %v", name, err)
		}
		if err := check(now.Add(time.Second)); err != nil {
			t.Errorf("%s one second later: %v", name, err)
		}
	}
	if err := Packet(dead, highest); err != nil {
		t.Errorf("at the bound: %v", err)
	}
	for _, year := range []int{1, 1970, 2100, 9999} {
		if most := MaxIncarnation(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)); most < spareIncarnations || most == maxUint32 {
			t.Errorf("%d in the year %d", most, year)
		}
	}
}
