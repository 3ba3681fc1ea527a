package daemon

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"weft/mesh"
)

const operationsDoc = "../../docs/OPERATIONS.md"

// inWarnings are functions whose texts get into the warnings of a status.
var inWarnings = regexp.MustCompile(`(?i)warnings?$|^waitingFor$|^unfinished$|^Problems$`)

// verb is where a text has something else each time.
var verb = regexp.MustCompile(`%[-+# 0]*[0-9]*(\.[0-9]+)?[a-zA-Z]`)

// TestOperationsHasEveryWarning: whoever searches docs/OPERATIONS.md for the words of a warning finds them.
func TestOperationsHasEveryWarning(t *testing.T) {
	page, err := os.ReadFile(operationsDoc)
	if err != nil {
		t.Fatal(err)
	}
	texts := append(warningTexts(t, "."), warningTexts(t, "../../ipam")...)
	texts = append(texts, warningTexts(t, "../../internal/dns")...)
	for why := mesh.MismatchOther; why <= mesh.MismatchUnclear; why++ {
		texts = append(texts, why.String())
	}
	const fewest = 30 // else this test does not find them any more
	if len(texts) < fewest {
		t.Fatalf("only %d texts found: %q", len(texts), texts)
	}
	for _, text := range texts {
		if text == "Some %s, or start with --no-dns." {
			continue // what stands in it is a text of internal/dns
		}
		if words := beginning(text); !strings.Contains(string(page), words) {
			t.Errorf("%s does not have the warning %q", operationsDoc, words)
		}
	}
}

// beginning is a text up to where it becomes a mend, with "…" for what differs.
func beginning(text string) string {
	text = strings.TrimPrefix(text, "%s: ") // a range
	for _, end := range []string{": ", ". ", "; "} {
		if before, _, found := strings.Cut(text, end); found && strings.Count(before, " ") > 2 {
			text = before
		}
	}
	return strings.Trim(verb.ReplaceAllString(text, "…"), " ,;.:") // some are continued
}

// warningTexts returns the formats of the warnings in the Go files of a folder.
func warningTexts(t *testing.T, folder string) (texts []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			all := inWarnings.MatchString(f.Name.Name)
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if ok && (all || name(call.Fun) == "warn" || name(call.Fun) == "append" && len(call.Args) == 2 && name(call.Args[0]) == "Warnings") {
					texts = append(texts, sentences(call)...)
				}
				return true
			})
		}
	}
	return texts
}

// sentences returns the texts among the arguments of a call that are sentences, or much of one.
func sentences(call *ast.CallExpr) (texts []string) {
	for _, arg := range call.Args {
		if inner, ok := arg.(*ast.CallExpr); ok && name(call.Fun) != "append" || ok && name(inner.Fun) == "Sprintf" {
			texts = append(texts, sentences(inner)...)
			continue
		}
		text, ok := literal(arg)
		if words := len(strings.Fields(verb.ReplaceAllString(text, ""))); ok && words > 3 {
			texts = append(texts, text)
		}
	}
	return texts
}

// literal returns what is written of an expression that begins with a text in quotes.
func literal(e ast.Expr) (text string, ok bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		left, ok := literal(e.X)
		right, known := literal(e.Y)
		if !known {
			right = "%s"
		}
		return left + right, ok
	}
	return "", false
}

// name returns the last name of an expression such as p.warn.
func name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}
