package kubernetes

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// previousImage is the name of the image of the previous release on the nodes.
const previousImage = "localhost/weft:previous"

// release is an older version of weft, built.
type release struct {
	name     string // as git describes it
	image    string // archive
	manifest string // path
}

// previousRevision is the newest tag before this commit, or else the commit in WEFT_E2E_PREVIOUS; empty if there is neither.
func (l *lab) previousRevision() string {
	tag, err := l.git("describe", "--tags", "--abbrev=0", "HEAD^")
	if err != nil {
		tag = ""
	}
	return cmp.Or(tag, os.Getenv("WEFT_E2E_PREVIOUS"))
}

// previous builds the previous release from a worktree of its own, unless an earlier run has.
func (l *lab) previous(t testing.TB) release {
	t.Helper()
	revision := l.previousRevision()
	name, err := l.git("describe", "--tags", "--always", "--abbrev=12", revision)
	if err != nil || revision == "" {
		t.Skip("there is no previous release: no tag, and WEFT_E2E_PREVIOUS names no commit")
	}
	folder := filepath.Join(l.root, "bin", "e2e", "previous-"+name)
	r := release{name: name, image: filepath.Join(folder, "weft-image.tar"), manifest: filepath.Join(folder, "kubernetes.yaml")}
	if _, err := os.Stat(r.manifest); err == nil {
		return r
	}
	tree := filepath.Join(l.dir, "previous")
	if out, err := l.git("worktree", "add", "--detach", tree, revision); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer func() { _, _ = l.git("worktree", "remove", "--force", tree) }()
	build := exec.CommandContext(t.Context(), "make", "-C", tree, "image", "IMAGE="+previousImage)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make image of %s: %v: %s", name, err, out)
	}
	text, err := os.ReadFile(filepath.Join(tree, "deploy", "kubernetes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(filepath.Join(tree, "bin", "weft-image.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	changed := strings.ReplaceAll(string(text), "localhost/weft:latest", previousImage)
	for path, content := range map[string][]byte{r.image: image, r.manifest: []byte(changed)} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// installPrevious installs the previous release, or this version if there is none.
func (l *lab) installPrevious(t *recorder) string {
	if l.previousRevision() == "" {
		return l.install(t)
	}
	r := l.previous(t)
	l.must(t, "load", r.image)
	l.notReady(t)
	l.createSecret(t)
	start := time.Now()
	l.apply(t, l.manifest(t, r.manifest))
	return fmt.Sprintf("%s: %s", r.name, l.installed(t, start))
}

// upgradeFromPrevious applies the manifest of this version over that of the previous release, under load.
func (l *lab) upgradeFromPrevious(t *recorder) string {
	r := l.previous(t)
	load := l.underLoad(t, func() {
		l.apply(t, l.manifest(t, l.current()))
		l.rolledOut(t)
	})
	load.check(t)
	for node := 1; node <= 2; node++ {
		if got := l.status(t, node).Version; !strings.Contains(got, version(t.T, l)) {
			t.Errorf("node %d runs %s", node, got)
		}
	}
	return fmt.Sprintf("from %s: %s", r.name, load)
}
