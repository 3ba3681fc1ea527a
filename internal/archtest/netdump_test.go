package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// dumps are the functions and methods of package netlink that ask the kernel for a list. LinkByName is none of them: kernels since
// 2.6.33 look names up.
var dumps = []string{
	"AddrList", "BridgeVlanList", "ConntrackTableList", "FilterList", "LinkByAlias", "LinkGetProtinfo", "LinkList", "NeighList",
	"NeighListExecute", "QdiscList", "RouteList", "RouteListFiltered", "RouteListFilteredIter", "RuleList", "RuleListFiltered",
}

// bareLists are the functions of package net that list links and addresses, and do not notice an interrupted dump.
var bareLists = []string{"InterfaceAddrs", "InterfaceByName", "InterfaceByIndex", "Interfaces"}

// TestDumpsAreRepeated: each dump of netlink is an argument of netdump.Repeat, and package net lists nothing.
func TestDumpsAreRepeated(t *testing.T) {
	for _, p := range loadPackages(t) {
		path := strings.TrimPrefix(p.ImportPath, "weft/")
		if strings.HasPrefix(path, "bench/") || strings.HasPrefix(path, "internal/nettest") || strings.HasSuffix(path, "test") {
			continue
		}
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range bareDumps(file) {
				t.Errorf("%s: %s is a bare dump: pass it to netdump.Repeat, or use package hostnet", fset.Position(at.Pos()), at.Sel.Name)
			}
		}
	}
}

// bareDumps returns where a file lists something outside of netdump.Repeat.
func bareDumps(file *ast.File) (found []*ast.SelectorExpr) {
	vishvananda := slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool {
		return i.Path.Value == `"github.com/vishvananda/netlink"`
	})
	for _, d := range file.Decls {
		found = append(found, bareDumpsIn(d, vishvananda)...)
	}
	return found
}

// bareDumpsIn is bareDumps for one declaration. A request that is written by hand is a dump if it has the flag of one.
func bareDumpsIn(decl ast.Decl, vishvananda bool) (found []*ast.SelectorExpr) {
	raw := false
	ast.Inspect(decl, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		raw = raw || ok && s.Sel.Name == "NLM_F_DUMP"
		return true
	})
	ast.Inspect(decl, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Repeat" && isPackage(s.X, "netdump") {
				return false
			}
		case *ast.SelectorExpr:
			if vishvananda && slices.Contains(dumps, n.Sel.Name) || raw && n.Sel.Name == "Execute" ||
				isPackage(n.X, "net") && slices.Contains(bareLists, n.Sel.Name) {
				found = append(found, n)
			}
		}
		return true
	})
	return found
}

func isPackage(x ast.Expr, name string) bool {
	id, ok := x.(*ast.Ident)
	return ok && id.Name == name
}

func TestBareDumps(t *testing.T) {
	const text = `package p
import ("net"; "github.com/vishvananda/netlink"; "weft/internal/netdump")
func f(h *netlink.Handle) {
	netlink.LinkList()
	h.AddrList(nil, 0)
	list := h.RouteList
	net.Interfaces()
	netdump.Repeat(h.LinkList)
	netdump.Repeat(func() ([]netlink.Addr, error) { return h.AddrList(nil, 0) })
}
func g() { nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP).Execute(0, 0) }
func one() { nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK).Execute(0, 0) }`
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", text, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range bareDumps(file) {
		names = append(names, s.Sel.Name)
	}
	if want := []string{"LinkList", "AddrList", "RouteList", "Interfaces", "Execute"}; !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
}
