package archtest

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// maxPackageLines bounds the size of a package, without its tests.
const maxPackageLines = 4200

// clockField is the name of the function fields that Configs may have: the clock, for tests.
const clockField = "Now"

// TestShape prints figures of the tree ("go test ./internal/archtest -run TestShape -v"), and holds the two that have a target:
// the size of the largest package, and no function fields in Configs but clocks.
func TestShape(t *testing.T) {
	packages := loadPackages(t)
	largest, most := "", 0
	var fields []string
	for _, p := range packages {
		lines := 0
		for _, name := range p.GoFiles {
			path := filepath.Join(p.Dir, name)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines += strings.Count(string(text), "\n")
			fields = append(fields, functionFields(t, path)...)
		}
		if lines > most {
			largest, most = p.ImportPath, lines
		}
	}
	t.Logf("packages: %d; largest: %s, %d lines; function fields in Configs: %d", len(packages), largest, most, len(fields))
	if most > maxPackageLines {
		t.Errorf("%s has %d lines, more than %d: split it", largest, most, maxPackageLines)
	}
	for _, f := range fields {
		t.Errorf("%s: make it a value or a small interface with documented threading", f)
	}
}

// functionFields returns the function fields of the Configs that a file declares, less clocks.
func functionFields(t *testing.T, path string) (fields []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || !strings.HasSuffix(spec.Name.Name, "Config") {
			return true
		}
		s, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, f := range s.Fields.List {
			if _, function := f.Type.(*ast.FuncType); !function {
				continue
			}
			for _, name := range f.Names {
				if name.Name != clockField {
					fields = append(fields, path+": "+spec.Name.Name+"."+name.Name)
				}
			}
		}
		return true
	})
	return fields
}

// TestReferencesGoDown counts the references between files of each part of a node that are part of a circle: a file refers to
// another, which refers back to it directly or through others. A file that holds a type and one that holds methods of it form such
// a circle, so the figure is not 0; it is printed to be compared.
func TestReferencesGoDown(t *testing.T) {
	exports := map[string]string{}
	for _, p := range listPackages(t, "-deps", "-export", "weft/internal/node") {
		exports[p.ImportPath] = p.Export
	}
	all, up := 0, 0
	for _, p := range loadPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, "weft/")
		if _, part := parts[name]; !part && name != "internal/node" {
			continue
		}
		edges := fileReferences(t, p, exports)
		circular := inCircles(edges)
		t.Logf("%-20s %2d files, %3d references between them, %2d of these in circles", name, len(p.GoFiles), countEdges(edges), circular)
		all, up = all+countEdges(edges), up+circular
	}
	t.Logf("%-20s %d references between files, %d of these in circles", "all parts", all, up)
}

// fileReferences returns, for each file of a package, the other files of it that declare what it uses.
func fileReferences(t *testing.T, p listedPackage, exports map[string]string) map[string]map[string]bool {
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	open := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", open)}
	pkg, err := config.Check(p.ImportPath, fset, files, info)
	if err != nil {
		t.Fatal(err)
	}
	edges := map[string]map[string]bool{}
	for id, object := range info.Uses {
		if object.Pkg() != pkg || object.Parent() != nil && object.Parent() != pkg.Scope() {
			continue // of another package, or local
		}
		from, to := fset.Position(id.Pos()).Filename, fset.Position(object.Pos()).Filename
		if from == to || to == "" {
			continue
		}
		if edges[from] == nil {
			edges[from] = map[string]bool{}
		}
		edges[from][to] = true
	}
	return edges
}

func countEdges(edges map[string]map[string]bool) (n int) {
	for _, to := range edges {
		n += len(to)
	}
	return n
}

// inCircles counts the edges that lie on a circle.
func inCircles(edges map[string]map[string]bool) (n int) {
	for from, targets := range edges {
		for to := range targets {
			if reaches(edges, to, from) {
				n++
			}
		}
	}
	return n
}

// reaches reports whether a path of edges leads from one file to another.
func reaches(edges map[string]map[string]bool, from, to string) bool {
	seen, queue := map[string]bool{from: true}, []string{from}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		if at == to {
			return true
		}
		for next := range edges[at] {
			if !slices.Contains(queue, next) && !seen[next] {
				seen[next] = true
				queue = append(queue, next)
			}
		}
	}
	return false
}
