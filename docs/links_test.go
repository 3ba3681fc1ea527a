// Package docs contains the pages about weft. Its tests check their relative links: the file and the heading must exist.
package docs

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

var (
	inlineLink = regexp.MustCompile(`\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?:\s+"[^"]*")?\)`)
	referred   = regexp.MustCompile(`(?m)^\[[^\]^]+\]:\s+(\S+)`)
	htmlLink   = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	htmlAnchor = regexp.MustCompile(`(?:id|name)="([^"]*)"`)
	codeSpan   = regexp.MustCompile("`[^`\n]*`")
	heading    = regexp.MustCompile(`^#{1,6}\s+(.*?)\s*#*$`)
	linkInside = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// TestLinks checks that every relative link of the README and of the pages below docs names a file that exists, and that
// every anchor names a heading of it.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, more...)
	pages = append(pages, "../README.md", "../CONTRIBUTING.md", "../CHANGELOG.md", "../SECURITY.md", "../deploy/prometheus/README.md")
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links(string(text)) {
			if err := follow(page, link); err != nil {
				t.Errorf("%s: %s: %v", page, link, err)
			}
		}
	}
}

// follow returns an error if the target of a link on a page does not exist. It does not check links to other sites.
func follow(page, link string) error {
	u, err := url.Parse(link)
	if err != nil || u.Scheme != "" || u.Host != "" {
		return err
	}
	target := page
	if u.Path != "" {
		target = filepath.Join(filepath.Dir(page), u.Path)
	}
	if _, err := os.Stat(target); err != nil || u.Fragment == "" {
		return err
	}
	text, err := os.ReadFile(target)
	if err != nil {
		return err
	}
	if !anchors(string(text))[u.Fragment] {
		return fmt.Errorf("no heading of %s has the anchor #%s", target, u.Fragment)
	}
	return nil
}

// prose returns a page without its fenced code blocks.
func prose(text string) string {
	var out strings.Builder
	fence := ""
	for line := range strings.Lines(text) {
		mark := strings.TrimSpace(line)
		switch {
		case fence == "" && (strings.HasPrefix(mark, "```") || strings.HasPrefix(mark, "~~~")):
			fence = mark[:3]
		case fence == "":
			out.WriteString(line)
		case strings.HasPrefix(mark, fence):
			fence = ""
		}
	}
	return out.String()
}

// links returns the targets of all links of a page.
func links(text string) (all []string) {
	text = prose(text)
	// A code span may be the text of a link, or contain the syntax of one.
	text = codeSpan.ReplaceAllString(text, "code")
	for _, r := range []*regexp.Regexp{inlineLink, referred, htmlLink} {
		for _, m := range r.FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
	}
	return all
}

// anchors returns the anchors of a page, as GitHub derives them from headings: lower case, spaces as hyphens, punctuation
// removed, and a number appended to a repeated name.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for line := range strings.Lines(prose(text)) {
		for _, m := range htmlAnchor.FindAllStringSubmatch(line, -1) {
			all[m[1]] = true
		}
		m := heading.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		name := anchor(m[1])
		for n, base := 1, name; all[name]; n++ {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		all[name] = true
	}
	return all
}

func anchor(heading string) string {
	heading = linkInside.ReplaceAllString(heading, "$1")
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r), unicode.IsNumber(r), r == '-', r == '_':
			return unicode.ToLower(r)
		case r == ' ':
			return '-'
		}
		return -1
	}, heading)
}

func TestAnchors(t *testing.T) {
	got := anchors("# What is `not`, (yet)\n\n## 4.1 A & b\n```\n# no\n```\n## A [link](x) here\n### Twice\n### Twice\n<a id=\"own\"></a>\n")
	want := map[string]bool{"what-is-not-yet": true, "41-a--b": true, "a-link-here": true, "twice": true, "twice-1": true, "own": true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLinksOfPage(t *testing.T) {
	got := links("[a](b.md) [`f(x)`](c_(d).md#e) ![p](q.png \"title\") `[no](no)`\n\n" +
		"[r]: s.md\n[^n]: note\n```\n[no](no)\n```\n<img src=\"i.png\">\n")
	if diff := cmp.Diff([]string{"b.md", "c_(d).md#e", "q.png", "s.md", "i.png"}, got); diff != "" {
		t.Error(diff)
	}
}
