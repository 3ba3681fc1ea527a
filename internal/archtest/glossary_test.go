package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the top folder of the repository.
const root = "../.."

// TestGlossary checks that the table "Glossary" of docs/ARCHITECTURE.md is complete and sorted, and that every type and
// file that it names exists in the tree.
func TestGlossary(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := tableAfter(string(page), "## Glossary")
	if len(rows) < 50 {
		t.Fatalf("the glossary has %d rows: is the table still there?", len(rows))
	}
	tree := parseTree(t)
	codeSpan := regexp.MustCompile("`([^`]+)`")
	last := ""
	for _, cells := range rows {
		if len(cells) != 4 {
			t.Errorf("%s: %d columns, not term, meaning, synonym and type", cells[0], len(cells))
			continue
		}
		term := strings.ToLower(cells[0])
		if term <= last {
			t.Errorf("%q stands after %q: sort the terms, each once", cells[0], last)
		}
		last = term
		if cells[1] == "" || cells[2] == "" {
			t.Errorf("%s: no meaning, or no synonym (an en dash where the field has none)", cells[0])
		}
		names := codeSpan.FindAllStringSubmatch(cells[3], -1)
		if len(names) == 0 {
			t.Errorf("%s: no type", cells[0])
		}
		for _, name := range names {
			if err := tree.find(name[1]); err != nil {
				t.Errorf("%s: %v: change docs/ARCHITECTURE.md with the code", cells[0], err)
			}
		}
	}
}

// tableAfter returns the rows of the first table after a heading of a page, without its head, a string for each cell.
func tableAfter(page, heading string) (rows [][]string) {
	_, rest, _ := strings.Cut(page, "\n"+heading+"\n")
	for line := range strings.Lines(rest) {
		line = strings.TrimSpace(line)
		inside := strings.HasPrefix(line, "|")
		if !inside && len(rows) > 0 || strings.HasPrefix(line, "## ") {
			break
		}
		if !inside {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows[min(2, len(rows)):]
}

// declarations are the names that a package declares: "Type", "Type.Method", "Type.field", "Function", "constant".
type declarations map[string]bool

// sourceTree maps the folders of the repository, with slashes, to what the packages in them declare, without tests.
type sourceTree map[string]declarations

func parseTree(t *testing.T) sourceTree {
	t.Helper()
	tree := sourceTree{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
			return filepath.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		folder = filepath.ToSlash(folder)
		if tree[folder] == nil {
			tree[folder] = declarations{}
		}
		tree[folder].add(file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func (d declarations) add(file *ast.File) {
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			name := decl.Name.Name
			if decl.Recv != nil {
				name = receiverOf(decl.Recv.List[0].Type) + "." + name
			}
			d[name] = true
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				d.addSpec(spec)
			}
		}
	}
}

func (d declarations) addSpec(spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.ValueSpec:
		for _, name := range spec.Names {
			d[name.Name] = true
		}
	case *ast.TypeSpec:
		d[spec.Name.Name] = true
		var members *ast.FieldList
		switch typ := spec.Type.(type) {
		case *ast.StructType:
			members = typ.Fields
		case *ast.InterfaceType:
			members = typ.Methods
		default:
			return
		}
		for _, member := range members.List {
			for _, name := range member.Names {
				d[spec.Name.Name+"."+name.Name] = true
			}
		}
	}
}

// receiverOf returns the name of the type of a method's receiver.
func receiverOf(expr ast.Expr) string {
	switch expr := expr.(type) {
	case *ast.StarExpr:
		return receiverOf(expr.X)
	case *ast.IndexExpr:
		return receiverOf(expr.X)
	case *ast.Ident:
		return expr.Name
	default:
		return ""
	}
}

var qualified = regexp.MustCompile(`^((?:[a-z0-9]+/)*[a-z0-9]+)\.([A-Za-z]\w*(?:\.[A-Za-z]\w*)?)$`)

// find returns an error if name is not in the tree. It is a path of a file or folder ("router/relay.go"), or a name that a
// package declares ("ring.Token", "ring.Token.Epoch"). If several packages have one name, more of the path is needed:
// "internal/dns.Entry".
func (tree sourceTree) find(name string) error {
	if strings.HasSuffix(name, ".go") || !strings.Contains(name, ".") {
		_, err := os.Stat(filepath.Join(root, filepath.FromSlash(name)))
		return err
	}
	parts := qualified.FindStringSubmatch(name)
	if parts == nil {
		return fmt.Errorf("%s is neither package.Type nor a file", name)
	}
	var folders []string
	for folder := range tree {
		if folder == parts[1] || strings.HasSuffix(folder, "/"+parts[1]) {
			folders = append(folders, folder)
		}
	}
	switch {
	case len(folders) == 0:
		return fmt.Errorf("%s: there is no package %s", name, parts[1])
	case len(folders) > 1:
		return fmt.Errorf("%s: package %s is one of %v: add more of its path", name, parts[1], folders)
	case !tree[folders[0]][parts[2]]:
		return fmt.Errorf("%s does not declare %s", folders[0], parts[2])
	}
	return nil
}
