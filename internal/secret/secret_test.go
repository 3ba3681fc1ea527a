package secret

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Lines of the tests. The keys that are derived from them must be the same in every version.
const (
	generated  = "weft-secret-1 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	generated2 = "weft-secret-1 ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
	passphrase = "correct horse battery staple"
)

func TestDerivedKeysNeverChange(t *testing.T) {
	secrets, err := Parse([]byte(generated + "\n" + passphrase + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	type keys struct {
		Gossip, Session string
		Fingerprint     uint32
	}
	var got []keys
	for _, s := range secrets {
		gossip, session := s.GossipKey(), s.SessionKey() // by HKDF, for the passphrase after argon2id
		if gossip == session || gossip == s.master() || session == s.master() {
			t.Errorf("%v: two keys are the same", s)
		}
		got = append(got, keys{hex.EncodeToString(gossip[:]), hex.EncodeToString(session[:]), s.Fingerprint()})
	}
	want := []keys{
		{
			"b8bf2a674ff0086dffd97da8bdec7423eaa57d60644e698493615428dbea3a7f",
			"86d532c19b99c91c914539497411b0bceb78067a27d0cba0b20a0aa9a67f38fd", 0x0fc8cd66,
		},
		{
			"577f5f4c6a62ea9497263f2d4d00dde88b84d3f9cca74b190827b042803a34bf",
			"8520fda62a3e91e7ed12eeccc228e18ecdde771beed36a5ce3e42ad3fde85d6f", 0x77d71956,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParse(t *testing.T) {
	long := strings.Repeat("ä", MinPassphrase)
	many := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteString(Generate() + "\n")
		}
		return b.String()
	}
	for _, tt := range []struct {
		name, text string
		err        error
		lines      int    // if err is nil
		where      string // a part of the error's text, if err is not nil
	}{
		{"generated", generated, nil, 1, ""},
		{"two, line ends of Windows", generated + "\r\n" + generated2 + "\r\n", nil, 2, ""},
		{"white space and blank lines", "\n\t " + generated + " \n\n  \n" + long + "\n", nil, 2, ""},
		{"byte order mark", byteOrderMark + generated, nil, 1, ""},
		{"the maximum", many(MaxSecrets), nil, MaxSecrets, ""},
		{"empty", "", ErrEmpty, 0, "secret"},
		{"blank", " \n\r\n\t", ErrEmpty, 0, "secret"},
		{"not UTF-8", generated + "\n\xff\xfe" + long, ErrNotUTF8, 0, "secret"},
		{"too many", many(MaxSecrets + 1), ErrTooMany, 0, "line 9"},
		{"short passphrase", generated + "\n\n" + long[2:], ErrTooShort, 0, "line 3"},
		{"prefix alone", "weft-secret-1", ErrMalformed, 0, "line 1"},
		{"cut", generated[:len(generated)-5], ErrMalformed, 0, "line 1"},
		{"not base64", strings.Replace(generated, "AAE", "A*E", 1), ErrMalformed, 0, "line 1"},
		{"bits beyond the last byte", strings.Replace(generated, "8=", "9=", 1), ErrMalformed, 0, "line 1"},
		{"longer", generated + "AAAA", ErrMalformed, 0, "line 1"},
		{"text after the base64", generated + " # ours", ErrMalformed, 0, "line 1"},
		{"twice", generated + "\n" + generated2 + "\n  " + generated, ErrTwice, 0, "line 3"},
		{"passphrase twice", long + "\n" + long, ErrTwice, 0, "line 2"},
		{"comment", "# our production secret\n" + generated, ErrComment, 0, "line 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lines, err := split([]byte(tt.text))
			if !errors.Is(err, tt.err) || len(lines) != tt.lines {
				t.Fatalf("got %d lines, %v; want %d, %v", len(lines), err, tt.lines, tt.err)
			}
			if err != nil && !strings.Contains(err.Error(), tt.where) {
				t.Errorf("%q does not contain %q", err, tt.where)
			}
			if err != nil && (strings.Contains(err.Error(), "AAE") || strings.Contains(err.Error(), "ä")) {
				t.Errorf("%q repeats the line", err)
			}
			if _, again := Parse([]byte(tt.text)); tt.err != nil && !errors.Is(again, tt.err) {
				t.Errorf("Parse: %v, want %v", again, tt.err)
			}
		})
	}
}

func TestGenerateIsParsed(t *testing.T) {
	a, b := Generate(), Generate()
	secrets, err := Parse([]byte(a + "\n" + b))
	if err != nil || len(secrets) != 2 || secrets[0].GossipKey() == secrets[1].GossipKey() {
		t.Errorf("%d secrets, %v", len(secrets), err)
	}
}

// TestNothingShowsASecret prints secrets in many ways, also in unexported fields, on which fmt calls no methods.
func TestNothingShowsASecret(t *testing.T) {
	secrets, err := Parse([]byte(generated))
	if err != nil {
		t.Fatal(err)
	}
	s := secrets[0]
	values := []any{
		s, &s, secrets, struct{ s Secret }{s}, struct{ S Secret }{s}, struct{ s []Secret }{secrets}, map[string]Secret{"a": s},
	}
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	text := slog.New(slog.NewTextHandler(&out, nil))
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		log.Info("secret", "value", v)
		text.Info("secret", "value", v)
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(out.String(), s.String()) {
		t.Error("the output does not contain the fingerprint")
	}
	for _, leak := range []string{"000102", "00010203", "1 2 3 4", "0x1, 0x2", "0x01, 0x02", "AAEC", `\x01\x02`, "1,2,3"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("the output contains %q:\n%s", leak, out.String())
		}
	}
	if got := fmt.Sprint(Secret{}); got != "secret(none)" {
		t.Errorf("the zero Secret prints as %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{generated, generated + "\r\n\r\n" + passphrase, prefix, byteOrderMark, "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		lines, err := split(text)
		if (err == nil) != (len(lines) > 0) || len(lines) > MaxSecrets {
			t.Fatalf("%d lines, %v", len(lines), err)
		}
		for _, l := range lines {
			if l.master == nil {
				return // deriving a key from a passphrase is too slow for a fuzz test
			}
		}
		if secrets, again := Parse(text); len(secrets) != len(lines) || (again == nil) != (err == nil) {
			t.Errorf("Parse: %d secrets, %v; split: %d lines, %v", len(secrets), again, len(lines), err)
		}
	})
}
