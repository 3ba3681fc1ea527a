package pcapng

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

// written returns a capture of one frame on each path, and of some lost frames.
func written(t testing.TB) []byte {
	var b bytes.Buffer
	w, err := NewWriter(&b, "weft test", "a filter")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []Path{{Sent: true}, {Peer: "b", Session: "session 1", Sent: true}, {Peer: "b", Session: "session 1"}} {
		if err := w.Write(time.Unix(1, 2000), path, 100, make([]byte, 60)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Lost(7); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestReader: a capture that was written can be read, and one that was cut off ends with an error.
func TestReader(t *testing.T) {
	whole := written(t)
	r, err := NewReader(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	var paths []Path
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if f.Length != 100 || len(f.Data) != 60 || !f.At.Equal(time.Unix(1, 2000)) {
			t.Errorf("%+v", f)
		}
		paths = append(paths, f.Path)
	}
	if want := []Path{{Sent: true}, {"b", "session 1", true}, {"b", "session 1", false}}; !slices.Equal(paths, want) {
		t.Errorf("paths %+v, want %+v", paths, want)
	}
	if r.Lost() != 7 || r.Comment() != "a filter" {
		t.Errorf("%d lost, comment %q", r.Lost(), r.Comment())
	}
	for n := range whole {
		r, err := NewReader(bytes.NewReader(whole[:n]))
		for err == nil {
			_, err = r.Next()
		}
	}
}

// TestTextIsPrintable: control characters in the name of a DNS query do not reach the terminal of the operator.
func TestTextIsPrintable(t *testing.T) {
	text := Text(query(" \x1b]0;x\a\n"), 100)
	if !strings.Contains(text, "DNS") || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("%q", text)
	}
}

// query returns a frame with a DNS query for a name of one label.
func query(label string) []byte {
	frame := append(make([]byte, 12), 8, 0)
	frame = append(frame, 0x45, 0, 0, byte(28+12+len(label)+6), 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)
	frame = append(frame, 0x30, 0x39, 0, 53, 0, byte(8+12+len(label)+6), 0, 0)
	frame = append(frame, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, byte(len(label)))
	return append(append(frame, label...), 0, 0, 1, 0, 1)
}

// FuzzText: the text of every frame is one printable line.
func FuzzText(f *testing.F) {
	f.Add([]byte{}, 0)
	f.Add(make([]byte, 60), 60)
	f.Add(query("web"), 74)
	f.Add(append(make([]byte, 12), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1), 42)
	f.Add(append(make([]byte, 12), 0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255), 86)
	f.Fuzz(func(t *testing.T, data []byte, length int) {
		if text := Text(data, length); strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("%q", text)
		}
	})
}
