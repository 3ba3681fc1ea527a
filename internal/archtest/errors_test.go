package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"weft/internal/hint"
)

// TestPackagesAreLeftOut checks that hint.Plain knows every package that begins errors with its name, so that no person reads it.
// Tests, and the packages of tests, are left out.
func TestPackagesAreLeftOut(t *testing.T) {
	prefix := regexp.MustCompile(`^([a-z0-9]+): `)
	found := 0
	for _, top := range []string{"bench", "cni", "internal", "ipam", "mesh", "router", "tap"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := filepath.ToSlash(path)
			if d.IsDir() && (strings.HasSuffix(name, "test") || strings.HasSuffix(name, "/e2e") || strings.HasSuffix(name, "/simnet")) {
				return filepath.SkipDir
			}
			if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				text, ok := errorText(n)
				if m := prefix.FindStringSubmatch(text); ok && m != nil && m[1] == file.Name.Name {
					found++
					if plain := hint.Plain(m[0] + "x"); plain != "x" {
						t.Errorf("%s: errors begin with %q: add it to the list of package hint", path, m[0])
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 100 {
		t.Errorf("only %d errors begin with the name of their package: does the search work?", found)
	}
}

// errorText returns the text of a call of errors.New or fmt.Errorf.
func errorText(n ast.Node) (text string, ok bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return "", false
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	literal, isText := call.Args[0].(*ast.BasicLit)
	if !ok || !isText || f.Sel.Name != "New" && f.Sel.Name != "Errorf" {
		return "", false
	}
	text, err := strconv.Unquote(literal.Value)
	return text, err == nil
}
