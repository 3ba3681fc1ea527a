package vaesgcm

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// vector is a record of a file in the format of NIST's response files.
type vector struct {
	key, nonce, text, additional, sealed []byte
	forged                               bool // Open fails
}

// readVectors reads a file of testdata: records with an empty line after each.
func readVectors(t *testing.T, path string) (list []vector) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for record := range strings.SplitSeq(string(file), "\n\n") {
		values := map[string][]byte{}
		forged := false
		for line := range strings.Lines(record) {
			line = strings.TrimSpace(line)
			forged = forged || line == "FAIL"
			name, digits, found := strings.Cut(line, " =")
			if !found || strings.HasPrefix(line, "#") {
				continue
			}
			if values[name], err = hex.DecodeString(strings.TrimSpace(digits)); err != nil {
				t.Fatal(err)
			}
		}
		if len(values) > 0 {
			sealed := append(values["CT"], values["Tag"]...)
			list = append(list, vector{values["Key"], values["IV"], values["PT"], values["AAD"], sealed, forged})
		}
	}
	return list
}

// TestVectors checks the published vectors, on CPUs without the instructions too.
func TestVectors(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.rsp")
	if err != nil || len(paths) != 2 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		list := readVectors(t, path)
		if len(list) < 4 {
			t.Errorf("%s has %d vectors", path, len(list))
		}
		for i, v := range list {
			aead, err := New(v.key)
			if err != nil {
				t.Fatal(err)
			}
			text, err := aead.Open(nil, v.nonce, v.sealed, v.additional)
			if v.forged {
				if err == nil {
					t.Errorf("%s, vector %d: a forged message was opened", path, i)
				}
				continue
			}
			if err != nil || !bytes.Equal(text, v.text) {
				t.Errorf("%s, vector %d: opened %x, %v, want %x", path, i, text, err, v.text)
			}
			if got := aead.Seal(nil, v.nonce, v.text, v.additional); !bytes.Equal(got, v.sealed) {
				t.Errorf("%s, vector %d: sealed %x, want %x", path, i, got, v.sealed)
			}
		}
	}
}
