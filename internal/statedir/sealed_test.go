package statedir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/hint"
)

// TestSealedNodeIsNotPlain: once a node has been protected, only --plain lets it run without protection.
func TestSealedNodeIsNotPlain(t *testing.T) {
	dir := t.TempDir()
	check := func(protected, plain, refused bool) {
		t.Helper()
		err := CheckSealed(dir, protected, plain)
		e, ok := errors.AsType[*hint.Error](err)
		if refused != ok || ok && (e.Kind != hint.Usage || !strings.Contains(e.Hint, "--plain")) {
			t.Errorf("protected %v, plain %v: %v", protected, plain, err)
		}
	}
	check(false, false, false) // never protected
	if err := MarkSealed(dir, "/etc/weft/secret"); err != nil {
		t.Fatal(err)
	}
	check(true, false, false)
	check(false, false, true)
	check(false, true, false)
	check(false, false, true) // --plain is needed at each start
	if err := CheckSealed(dir, false, false); !strings.Contains(err.Error(), "/etc/weft/secret") {
		t.Errorf("%v does not name the file", err)
	}
	if !holdsOnlyState(dir) {
		t.Error("the mark counts as a foreign file")
	}
}

// TestMarkIsAbsolute: the error names a file that can be found from any folder.
func TestMarkIsAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := MarkSealed(dir, "secret"); err != nil {
		t.Fatal(err)
	}
	if err := CheckSealed(dir, false, false); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "secret")) {
		t.Errorf("%v does not name the file", err)
	}
}

// TestUnreadableMarkRefuses: a mark that cannot be read does not open the node.
func TestUnreadableMarkRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, SealedFile), 0o700); err != nil { // reading a directory fails for every user
		t.Fatal(err)
	}
	if err := CheckSealed(dir, false, false); err == nil {
		t.Error("a node with an unreadable mark may run without protection")
	}
}
