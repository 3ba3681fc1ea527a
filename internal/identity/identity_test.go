package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/peer"
)

var (
	nodeKey  = [peer.KeySize]byte{1}
	otherKey = [peer.KeySize]byte{2}
)

// signed returns a certificate of a CA for nodeKey by the terms of the example.
func signed(t *testing.T, ca CA) Certificate {
	t.Helper()
	c, err := ca.Sign(nodeKey, exampleTerms())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// list returns a signed list of revoked nodes.
func list(t *testing.T, ca CA, version uint64, ids ...peer.ID) Revocations {
	t.Helper()
	var entries []Revocation
	for _, id := range ids {
		entries = append(entries, Revocation{id, time.Unix(exampleTime, 0)})
	}
	l, err := ca.SignRevocations(version, time.Unix(exampleTime, 0), entries)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestCertificatesAreChecked(t *testing.T) {
	ca, other := GenerateCA(), GenerateCA()
	good := signed(t, ca).Encode()
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	renamed := append([]byte(nil), good...)
	renamed[certificateFixed] = 'g'
	at := time.Unix(exampleTime, 0).Add(time.Hour)
	holder := Holder{Public: nodeKey, Name: "host1", Named: true, Addr: netip.MustParseAddr("192.0.2.9")}
	for _, tt := range []struct {
		name   string
		trust  Trust
		shown  []byte
		change func(h *Holder)
		now    time.Time
		want   Refusal // 0: admitted
	}{
		{name: "good", shown: good},
		{name: "as a stream sees it", shown: good, change: func(h *Holder) { *h = Holder{Public: nodeKey} }},
		{name: "IPv6", shown: good, change: func(h *Holder) { h.Addr = netip.MustParseAddr("2001:db8::7") }},
		{name: "IPv4 as IPv6", shown: good, change: func(h *Holder) { h.Addr = netip.MustParseAddr("::ffff:192.0.2.9") }},
		{name: "clock behind", shown: good, now: time.Unix(exampleTime, 0).Add(-Skew)},
		{name: "second CA", trust: NewTrust([]CAKey{other.Key(), ca.Key()}), shown: good},
		{name: "none", shown: nil, want: NoCertificate},
		{name: "cut", shown: good[:len(good)-1], want: Unreadable},
		{name: "longer", shown: append(good[:len(good):len(good)], 0), want: Unreadable},
		{name: "forged", shown: forged, want: OtherCA},
		{name: "changed", shown: renamed, want: OtherCA},
		{name: "another key", shown: good, change: func(h *Holder) { h.Public = otherKey }, want: OtherCA},
		{name: "another CA", trust: NewTrust([]CAKey{other.Key()}), shown: good, want: OtherCA},
		{name: "too early", shown: good, now: time.Unix(exampleTime, 0).Add(-Skew - time.Second), want: NotYetValid},
		{name: "expired", shown: good, now: exampleTerms().NotAfter, want: Expired},
		{name: "another name", shown: good, change: func(h *Holder) { h.Name = "host2" }, want: OtherName},
		{name: "another address", shown: good, change: func(h *Holder) { h.Addr = netip.MustParseAddr("198.51.100.1") }, want: OtherAddress},
		{name: "revoked", trust: trustIn(t, ca, list(t, ca, 1, peer.FromPublicKey(nodeKey))), shown: good, want: Revoked},
		{name: "revoked without certificate", trust: trustIn(t, ca, list(t, ca, 1, peer.FromPublicKey(nodeKey))), want: Revoked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if len(tt.trust.CAs()) == 0 {
				tt.trust = NewTrust([]CAKey{ca.Key()})
			}
			if tt.now.IsZero() {
				tt.now = at
			}
			h := holder
			if tt.change != nil {
				tt.change(&h)
			}
			_, e := tt.trust.Check(tt.shown, h, tt.now)
			if tt.want == 0 {
				if e != nil {
					t.Fatal(e)
				}
				return
			}
			if e == nil || e.Refusal != tt.want {
				t.Fatalf("%v, want refusal %q", e, tt.want)
			}
			if e.Refusal.Remedy("that node") == "" || e.Refusal.Code() == "unknown" || strings.Contains(e.Error(), "unknown reason") {
				t.Errorf("%v has no text, code or remedy", e.Refusal)
			}
		})
	}
}

func trustIn(t *testing.T, ca CA, l Revocations) Trust {
	t.Helper()
	trust, adopted, err := NewTrust([]CAKey{ca.Key()}).Adopt(l)
	if err != nil || !adopted {
		t.Fatal(adopted, err)
	}
	return trust
}

func TestListsDoNotGoBack(t *testing.T) {
	ca, id := GenerateCA(), peer.FromPublicKey(nodeKey)
	trust := trustIn(t, ca, list(t, ca, 5, id))
	for _, l := range []Revocations{list(t, ca, 5, id), list(t, ca, 4), list(t, ca, 1, id)} {
		if next, adopted, err := trust.Adopt(l); adopted || err != nil || next.List(ca.Key()).Version != 5 {
			t.Errorf("version %d: adopted %v, %v", l.Version, adopted, err)
		}
	}
	if _, adopted, err := trust.Adopt(list(t, GenerateCA(), 9)); adopted || !errors.Is(err, ErrMalformed) {
		t.Errorf("a list of another CA: adopted %v, %v", adopted, err)
	}
	forged := list(t, ca, 6)
	forged.Version = 7
	if _, adopted, err := trust.Adopt(forged); adopted || err == nil {
		t.Errorf("a forged list: adopted %v, %v", adopted, err)
	}
	next, adopted, err := trust.Adopt(list(t, ca, 6))
	if _, revoked := next.Revoked(id); !adopted || err != nil || revoked {
		t.Errorf("a newer list: adopted %v, %v, still revoked %v", adopted, err, revoked)
	}
	if _, revoked := trust.Revoked(id); !revoked {
		t.Error("Adopt has changed the Trust before it")
	}
}

// TestEqualVersions: of two lists of one version, from copies of the CA, all nodes choose the same.
func TestEqualVersions(t *testing.T) {
	ca := GenerateCA()
	a, b := list(t, ca, 3, peer.ID{1}), list(t, ca, 3, peer.ID{2})
	if a.Newer(b) == b.Newer(a) || a.Newer(a) {
		t.Errorf("a over b: %v, b over a: %v, a over a: %v", a.Newer(b), b.Newer(a), a.Newer(a))
	}
}

func TestFiles(t *testing.T) {
	ca, second := GenerateCA(), GenerateCA()
	c := signed(t, ca)
	text := "# host1\n\n" + ca.Key().String() + "\r\n" + second.Key().String() + "\n  " + c.String()
	f, err := ParseFile(text)
	if err != nil || len(f.CAs) != 2 || f.CAs[0] != ca.Key() || f.Certificate.String() != c.String() {
		t.Fatal(f, err)
	}
	if again, err := ParseFile(f.String()); err != nil || again.String() != f.String() {
		t.Fatal(again, err)
	}
	for name, text := range map[string]string{
		"empty":            "",
		"no certificate":   ca.Key().String(),
		"no CA":            c.String(),
		"CA twice":         ca.Key().String() + "\n" + ca.Key().String() + "\n" + c.String(),
		"two certificates": ca.Key().String() + "\n" + c.String() + "\n" + c.String(),
		"cut":              ca.Key().String() + "\n" + c.String()[:60],
		"something else":   "hello\n" + c.String(),
		"the private key":  ca.Line() + "\n" + c.String(),
	} {
		if _, err := ParseFile(text); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), strings.TrimPrefix(ca.Line(), keyPrefix)) {
			t.Errorf("%s: the error repeats the private key", name)
		}
	}
}

func TestFilesOfCAs(t *testing.T) {
	ca, second := GenerateCA(), GenerateCA()
	list, err := ParseCAs("# old\n" + ca.Key().String() + "\n\n" + second.Key().String() + "\n")
	if err != nil || len(list) != 2 || list[0] != ca.Key() || list[1] != second.Key() {
		t.Fatal(list, err)
	}
	for name, text := range map[string]string{
		"empty": "", "CA twice": ca.Key().String() + "\n" + ca.Key().String(), "the private key": ca.Line(),
		"a certificate": ca.Key().String() + "\n" + signed(t, ca).String(),
	} {
		if _, err := ParseCAs(text); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeysArePrintedAsPublicKeys(t *testing.T) {
	ca := GenerateCA()
	again, err := ParseCA(ca.Line() + "\n")
	if err != nil || again.Key() != ca.Key() {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(ca), fmt.Sprintf("%+v %#v %x", ca, ca, ca), fmt.Sprint(CA{})} {
		if strings.Contains(text, strings.Fields(ca.Line())[1]) || strings.Contains(text, fmt.Sprintf("%x", ca.private().Seed())) {
			t.Errorf("%q contains the private key", text)
		}
	}
}

func TestTermsThatCannotBeSigned(t *testing.T) {
	ca, prefix := GenerateCA(), netip.MustParsePrefix("10.0.0.0/8")
	for name, change := range map[string]func(*Terms){
		"ends before it begins": func(t *Terms) { t.NotAfter = t.NotBefore },
		"long name":             func(t *Terms) { t.Name = strings.Repeat("x", MaxName+1) },
		"control character":     func(t *Terms) { t.Name = "a\x1b[2J" },
		"five prefixes":         func(t *Terms) { t.Addresses = []netip.Prefix{prefix, prefix, prefix, prefix, prefix} },
		"no prefix":             func(t *Terms) { t.Addresses = []netip.Prefix{{}} },
		"year 10000":            func(t *Terms) { t.NotAfter = time.Unix(maxTime+1, 0) },
	} {
		terms := exampleTerms()
		change(&terms)
		if _, err := ca.Sign(nodeKey, terms); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := exampleTerms()
	long.Name, long.Addresses = strings.Repeat("x", MaxName), nil
	for range MaxAddresses {
		long.Addresses = append(long.Addresses, netip.MustParsePrefix("2001:db8::/64"))
	}
	c, err := ca.Sign(nodeKey, long)
	if err != nil || len(c.Encode()) != MaxCertificate || MaxCertificate > 255 {
		t.Errorf("the longest certificate: %d bytes, %v", len(c.Encode()), err)
	}
}

func TestRequests(t *testing.T) {
	for _, r := range []Request{{nodeKey, "host1"}, {nodeKey, ""}, {nodeKey, "the second host"}} {
		if again, err := ParseRequest(r.String() + "\n"); err != nil || again != r {
			t.Errorf("%q: %v, %v", r, again, err)
		}
	}
	for _, text := range []string{"", RequestPrefix, RequestPrefix + " AAAA x", "weft-secret-1 AAAA", RequestPrefix + " " +
		strings.Repeat("A", 43) + "= \x07"} {
		if _, err := ParseRequest(text); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestRenewAt(t *testing.T) {
	c := signed(t, GenerateCA())
	if want := exampleTerms().NotAfter.Add(-30 * 24 * time.Hour); !c.RenewAt().Equal(want) {
		t.Errorf("%s, want %s", c.RenewAt(), want)
	}
}

// FuzzParse: no bytes panic, and those that can be read are the only encoding of what they say.
func FuzzParse(f *testing.F) {
	ca := caOf(unhex(exampleSeed))
	c, err := ca.Sign(nodeKey, exampleTerms())
	if err != nil {
		f.Fatal(err)
	}
	l, err := ca.SignRevocations(1, time.Unix(exampleTime, 0), []Revocation{
		{peer.ID{1}, time.Unix(exampleTime, 0)}, {peer.ID{2}, time.Unix(1, 0)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(l.Encode())
	f.Add(c.Encode())
	f.Add([]byte(File{CAs: []CAKey{ca.Key()}, Certificate: c}.String()))
	f.Add([]byte(Request{nodeKey, "host1"}.String()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCertificate(b); err == nil && string(c.Encode()) != string(b) {
			t.Errorf("certificate %x is encoded as %x", b, c.Encode())
		}
		if l, err := ParseRevocations(b); err == nil && string(l.Encode()) != string(b) {
			t.Errorf("list %x is encoded as %x", b, l.Encode())
		}
		if file, err := ParseFile(string(b)); err == nil {
			if again, err := ParseFile(file.String()); err != nil || again.String() != file.String() {
				t.Errorf("file %q is written as %q: %v", b, file, err)
			}
		}
		if list, err := ParseCAs(string(b)); err == nil && (len(list) == 0 || len(list) > MaxCAs) {
			t.Errorf("%d CAs in %q", len(list), b)
		}
		if r, err := ParseRequest(string(b)); err == nil {
			if again, err := ParseRequest(r.String()); err != nil || again != r {
				t.Errorf("request %q is written as %q: %v", b, r, err)
			}
		}
	})
}
