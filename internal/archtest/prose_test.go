package archtest

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// proseRules are the words that the project does not use, each with the words to use instead. They apply to comments, string literals and
// declared names in Go, to every line of all other text files, and to the names of Go files and pages. CONTRIBUTING.md has the reasons.
var proseRules = []proseRule{
	// Pronouns for people. Nodes, packets and programs are "the sender", "the node that", "its".
	{pattern: `whom|whomever|whose|whoever`, instead: "which, that, its, or a noun"},
	{pattern: `who`, instead: "that, or a noun; \"who\" stands for people only, after a noun such as operator", after: peopleBefore},
	{pattern: `he|his|him|himself`, instead: "it, its, or a noun"},
	{pattern: `(some|no|any|every)body`, instead: "a node, no peer, another program; for people: someone, no one, anyone"},

	// Words and figures that a technical text has a standard word for.
	{pattern: `mend(s|ed|ing)?`, instead: "fix, repair, restore; as a noun: remedy"},
	{pattern: `tell(s|ing)?|told`, instead: "report, send, publish, show; to distinguish"},
	{pattern: `for ever`, instead: "indefinitely, without limit, permanently"},
	{pattern: `as good as`, instead: "almost, or state what happens"},
	{pattern: `to and fro`, instead: "back and forth, or flap"},
	{pattern: `what is said`, instead: "name the error or the message"},

	// US spelling, as misspell in golangci-lint requires it in Go.
	{pattern: `(behavi|neighb|col|fav|hon|lab)our(s|ed|ing|able|hood)?|catalog(ue|ues)|cent(re)s?|licen(ce)s?|grey|` +
		`(dial|cancel|label|travel|signal)l(ed|ing)`,
		instead: "US spelling"},
	{pattern: `(author|initial|maxim|minim|normal|optim|organ|recogn|serial|standard|summar|synchron)is(e|es|ed|ing|ations?)`,
		instead: "US spelling"},

	// Terms that weft once had for itself. The glossary of docs/ARCHITECTURE.md has the terms of today.
	{pattern: `lanes?`, instead: "egress"},
	{pattern: `crossings?`, instead: "send state, remote peer"},
	{pattern: `detours?`, instead: "relayed endpoint"},
	{pattern: `knock(s|ed|ing)?`, instead: "dial-back, reachability probe"},
	{pattern: `letters?`, instead: "fragment, reassembly; for the alphabet: rune", names: true},
	{pattern: `strangers?`, instead: "key mismatch, unknown peer, or unauthenticated sender"},
	{pattern: `foreigners?`, instead: "cluster mismatch, delegated, or \"not ours\""},
	{pattern: `foundings?`, instead: "bootstrap, cluster ID"},
	{pattern: `decrees?`, instead: "Paxos instance, reclaim instance"},
	{pattern: `electors?`, instead: "acceptor"},
	{pattern: `canvass(es|ed|ing)?`, instead: "prepare, accept"},
	{pattern: `heirs?`, instead: "new owner"},
	{pattern: `estates?`, instead: "dead tokens"},
	{pattern: `bequeath(s|ed|ing)?`, instead: "hand over"},
	{pattern: `reigns?`, instead: "epoch"},
	{pattern: `hollows?`, instead: "tombstone"},
	{pattern: `guardians?`, instead: "keepalive peers"},
	{pattern: `joiners?`, instead: "coalescer"},
}

// peopleBefore matches what stands before a "who" that stands for people.
const peopleBefore = `(?i)\b(operators?|users?|administrators?|persons?|people|engineers?|readers?|reviewers?|attackers?|newcomers?|` +
	`someone|anyone|everyone|no one|developers?|maintainers?|contributors?|authors?|those),? $`

// proseExceptions are lines that may have such a word, each with the reason. A path is a file, or a folder with a slash at its end. An
// exception that no line needs any more fails the test.
var proseExceptions = []proseException{
	{"internal/archtest/prose_test.go", "", "the list of the words itself"},
	{"ipam/metrics.go", "founding", "value of a metric label"},
	{"docs/METRICS.md", "founding", "value of a metric label"},
	{"deploy/prometheus/weft.rules.yaml", `claim|old_state|founding`, "value of a metric label"},
	{"internal/api/api.go", `json:"mend,omitempty"`, "name of a field of the API"},
	{"internal/api/enum_test.go", `"mend":"x"`, "name of a field of the API"},
	{"ipam/metrics_test.go", `kind="founding"`, "value of a metric label"},
	{"internal/e2e/ipv6_test.go", `"who has "`, "the format of tcpdump"},
	{"internal/e2e/neighbor_test.go", `"who-has "`, "the format of tcpdump"},
	{"internal/podlink/kernel_linux_test.go", "Request who-has", "the format of tcpdump"},
	{"internal/capture/pcapng/text.go", "ARP who-has %s tell %s", "the format of tcpdump"},
	{"ipam/store/bolt.go", `"decrees"`, "name of a bucket in ipam.db, a format on disk"},
	{"ipam/store/bolt.go", "decrees: range as text", "the same, in the description of the format"},
}

type proseRule struct {
	pattern string // of whole words, in any case
	instead string
	after   string // where what stands before the word on its line matches this, the word is allowed
	names   bool   // in names that Go files declare only
}

type proseException struct {
	path   string
	text   string // part of the line; empty for all lines of the path
	reason string
}

// proseFinding is one banned word on one line.
type proseFinding struct {
	path    string
	line    int
	word    string
	instead string
	text    string // the whole line
}

func (f proseFinding) String() string {
	return fmt.Sprintf("%s:%d: %q: use %s", f.path, f.line, f.word, f.instead)
}

// TestProse checks that comments, strings, declared names, scripts and pages are written in plain technical English. With -v it
// prints how many findings each folder has.
// See docs/adr/0026-one-vocabulary.md.
func TestProse(t *testing.T) {
	rules := compileProse(t)
	used := make([]bool, len(proseExceptions))
	folders := map[string]int{}
	err := eachText("../..", func(path string, text []byte) error {
		found, err := rules.check(path, text)
		for _, f := range found {
			if i := slices.IndexFunc(proseExceptions, func(e proseException) bool { return e.covers(f) }); i >= 0 {
				used[i] = true
				continue
			}
			folders[filepath.Dir(path)]++
			t.Error(f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range proseExceptions {
		if !used[i] {
			t.Errorf("no line needs the exception for %q in %s any more: delete it", e.text, e.path)
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		t.Logf("%5d %s", folders[folder], folder)
	}
}

// covers reports whether the exception allows a finding.
func (e proseException) covers(f proseFinding) bool {
	in := f.path == e.path || strings.HasSuffix(e.path, "/") && strings.HasPrefix(f.path, e.path)
	return in && strings.Contains(f.text, e.text)
}

// markdownWidth is how many columns a line of a page may have, without the targets of its links. Tables and code cannot be broken.
const markdownWidth = 120

var linkTarget = regexp.MustCompile(`\]\([^)\s]*\)`)

// TestMarkdownWidth checks that pages have lines that a reviewer can read side by side.
func TestMarkdownWidth(t *testing.T) {
	err := eachText("../..", func(path string, text []byte) error {
		if filepath.Ext(path) != ".md" {
			return nil
		}
		n, fenced := 0, false
		for line := range strings.Lines(string(text)) {
			n++
			bare := strings.TrimSpace(line)
			if strings.HasPrefix(bare, "```") {
				fenced = !fenced
			}
			if fenced || strings.HasPrefix(bare, "|") || strings.HasPrefix(line, "    ") {
				continue
			}
			line = linkTarget.ReplaceAllString(strings.TrimRight(line, "\n"), "]")
			if width := utf8.RuneCountInString(line); width > markdownWidth {
				t.Errorf("%s:%d: %d columns: break the line at the end of a sentence, %d columns at most", path, n, width, markdownWidth)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// eachText calls f for each text file below root, with its path from there and with what is in it. What others wrote, and what programs
// made, is left out.
func eachText(root string, f func(path string, text []byte) error) error {
	skipFolders := []string{".git", "bin", "fuzz", "node_modules"}
	skipFiles := []string{"go.sum", "go.mod", "LICENSE"}
	skipKinds := []string{".svg", ".png", ".pcap", ".pcapng", ".bin", ".out", ".prof", ".tar", ".gz"}
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(skipFolders, entry.Name()):
			return filepath.SkipDir
		case !entry.Type().IsRegular() || slices.Contains(skipFiles, entry.Name()) || slices.Contains(skipKinds, filepath.Ext(path)):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil || bytes.IndexByte(text, 0) >= 0 {
			return err
		}
		path, err = filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return f(filepath.ToSlash(path), text)
	})
}

// compiledProse is proseRules in one expression, which most lines do not match, and one for each.
type compiledProse struct {
	all   *regexp.Regexp
	rules []compiledRule
}

type compiledRule struct {
	words   *regexp.Regexp
	after   *regexp.Regexp // may be nil
	instead string
	names   bool
}

func compileProse(t *testing.T) compiledProse {
	t.Helper()
	var c compiledProse
	var patterns []string
	for _, r := range proseRules {
		rule := compiledRule{words: regexp.MustCompile(`(?i)\b(` + r.pattern + `)\b`), instead: r.instead, names: r.names}
		if r.after != "" {
			rule.after = regexp.MustCompile(r.after)
		}
		c.rules = append(c.rules, rule)
		patterns = append(patterns, r.pattern)
	}
	c.all = regexp.MustCompile(`(?i)\b(` + strings.Join(patterns, "|") + `)\b`)
	return c
}

// check returns the banned words of a file: of its name if it is Go or Markdown, then of its lines.
func (c compiledProse) check(path string, text []byte) ([]proseFinding, error) {
	kind := filepath.Ext(path)
	if kind != ".go" && kind != ".md" {
		return c.lines(path, 1, string(text), string(text), false), nil
	}
	name := strings.NewReplacer("-", " ", "_", " ").Replace(strings.TrimSuffix(filepath.Base(path), kind))
	found := c.lines(path, 1, name, string(text), true)
	if kind == ".md" {
		return append(found, c.lines(path, 1, string(text), string(text), false)...), nil
	}
	more, err := c.goFile(path, text)
	return append(found, more...), err
}

// lines returns the banned words of a text of one or more lines, of which the first has the number n in whole, the text of the file. name
// is true where the text is a declared name.
func (c compiledProse) lines(path string, n int, text, whole string, name bool) (found []proseFinding) {
	all := strings.Split(whole, "\n")
	for i, line := range strings.Split(text, "\n") {
		if !c.all.MatchString(line) {
			continue
		}
		for _, r := range c.rules {
			for _, at := range r.words.FindAllStringIndex(line, -1) {
				if r.names && !name || r.after != nil && r.after.MatchString(line[:at[0]]) {
					continue
				}
				found = append(found, proseFinding{path, n + i, line[at[0]:at[1]], r.instead, all[n+i-1]})
			}
		}
	}
	return found
}

// goFile returns the banned words of a Go file: of its comments, its string literals and the names that it declares.
func (c compiledProse) goFile(path string, text []byte) ([]proseFinding, error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var found []proseFinding
	add := func(at token.Pos, s string, name bool) {
		found = append(found, c.lines(path, set.Position(at).Line, s, string(text), name)...)
	}
	for _, group := range file.Comments {
		for _, comment := range group.List {
			add(comment.Pos(), comment.Text, false)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.BasicLit:
			if s, err := strconv.Unquote(n.Value); n.Kind == token.STRING && err == nil {
				if strings.Contains(n.Value, `\n`) {
					s = strings.ReplaceAll(s, "\n", " ") // one line of the file
				}
				add(n.Pos(), s, false)
			}
		}
		for _, name := range declared(n) {
			add(name.Pos(), strings.Join(words(name.Name), " "), true)
		}
		return true
	})
	slices.SortStableFunc(found, func(a, b proseFinding) int { return cmp.Compare(a.line, b.line) })
	return found, nil
}

// declared returns the names that a node of the syntax tree itself declares.
func declared(n ast.Node) (names []*ast.Ident) {
	var exprs []ast.Expr
	switch n := n.(type) {
	case *ast.File:
		return []*ast.Ident{n.Name}
	case *ast.FuncDecl:
		return []*ast.Ident{n.Name}
	case *ast.TypeSpec:
		return []*ast.Ident{n.Name}
	case *ast.ValueSpec:
		return n.Names
	case *ast.Field:
		return n.Names
	case *ast.AssignStmt:
		if n.Tok == token.DEFINE {
			exprs = n.Lhs
		}
	case *ast.RangeStmt:
		if n.Tok == token.DEFINE {
			exprs = []ast.Expr{n.Key, n.Value}
		}
	}
	for _, e := range exprs {
		if name, ok := e.(*ast.Ident); ok {
			names = append(names, name)
		}
	}
	return names
}

// words splits a name in camel case or snake case.
func words(name string) (list []string) {
	runes := []rune(name)
	start := 0
	for i := 1; i <= len(runes); i++ {
		if i < len(runes) && runes[i] != '_' && runes[start] != '_' {
			up := unicode.IsUpper(runes[i])
			if !up || unicode.IsUpper(runes[i-1]) && (i+1 == len(runes) || unicode.IsUpper(runes[i+1]) || unicode.IsDigit(runes[i+1])) {
				continue
			}
		}
		if word := strings.Trim(string(runes[start:i]), "_"); word != "" {
			list = append(list, word)
		}
		start = i
	}
	return list
}

func TestWords(t *testing.T) {
	for name, want := range map[string]string{
		"lane": "lane", "laneFor": "lane For", "openHTTPServer": "open HTTP Server", "TestOld_name": "Test Old name", "nodeID": "node ID",
		"x": "x", "_": "",
	} {
		if got := strings.Join(words(name), " "); got != want {
			t.Errorf("words(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestProseRules(t *testing.T) {
	rules := compileProse(t)
	for text, want := range map[string]int{
		"The node whose lease ended":              1,
		"an operator who restarts the node":       0,
		"a peer who restarts":                     1,
		"He mends it for ever.":                   3,
		"plane, other, history, the theory, here": 0,
		"up to 63 letters and digits":             0,
	} {
		if got := rules.lines("page.md", 1, text, text, false); len(got) != want {
			t.Errorf("%q: %d findings, want %d: %v", text, len(got), want, got)
		}
	}
	const source = "package p\n\n// Tell sends.\nfunc Tell(knockAddr string) {\n\tnewLetters := `a\nlane`\n\t_ = newLetters + knockAddr\n}\n"
	found, err := rules.check("p.go", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range found {
		got = append(got, fmt.Sprint(f.line, " ", f.word))
	}
	if want := []string{"3 Tell", "4 Tell", "4 knock", "5 Letters", "6 lane"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
