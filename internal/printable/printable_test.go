package printable

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"knot-1":                          "knot-1",
		"Knöten 結び目 🪢":                    "Knöten 結び目 🪢",
		"\ufffd":                          "\ufffd",
		"x\x1b]0;owned\a\x1b[2J\nroot":    "x.]0;owned..[2J.root",
		"a\r\tb\x00\x7f":                  "a..b..",
		"c1 \u009b31m":                    "c1 .31m",
		"bidi \u202egnp.exe\u2066":        "bidi .gnp.exe.",
		"zero\u200b\u200d\ufeffwidth":     "zero...width",
		"filler \u3164\u115f\u034f\ufe0f": "filler ....",
		"line\u2028par\u2029\u00a0":       "line.par..",
		"bad\xff\xc3":                     "bad..",
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
	if got := Lines("a\tb\n\x1b[c\r\n"); got != "a\tb\n.[c.\n" {
		t.Errorf("Lines: %q", got)
	}
	if n := testing.AllocsPerRun(100, func() { _ = Text("Knöten 結び目") }); n != 0 {
		t.Errorf("%v allocations for printable text", n)
	}
}

// TestWriter: a character that is split between two writes is the same character.
func TestWriter(t *testing.T) {
	const in = "結び目\x1b[31m\xff ö\u202e\n\xe7"
	var b bytes.Buffer
	if _, err := io.Copy(struct{ io.Writer }{&Writer{W: &b}}, iotest.OneByteReader(bytes.NewReader([]byte(in)))); err != nil {
		t.Fatal(err)
	}
	if want := "結び目.[31m. ö.\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func FuzzText(f *testing.F) {
	f.Add("x\x1b[2J\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		text := Text(s)
		if len(text) > len(s) || !utf8.ValidString(text) || Text(text) != text {
			t.Errorf("%q became %q", s, text)
		}
		plain, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		escaped := JSON(plain)
		if Lines(string(escaped)) != string(escaped) {
			t.Errorf("%q is not printable", escaped)
		}
		var back, want string
		if json.Unmarshal(escaped, &back) != nil || json.Unmarshal(plain, &want) != nil || back != want {
			t.Errorf("%q became %q", plain, escaped)
		}
	})
}
