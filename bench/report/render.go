package report

import (
	"fmt"
	"io"
	"path/filepath"
)

// Options say how to render results again.
type Options struct {
	// Markdown only prints the report, links to pictures included.
	Markdown bool
	// Out is the folder to write to; empty: that of the results.
	Out string
	// Doc, unless empty, is a page of documentation to write as well.
	Doc string
}

// Render renders the results in a file again and prints the report.
func Render(path string, o Options, w io.Writer) error {
	r, err := Read(path)
	if err != nil {
		return err
	}
	text := Text(r)
	if o.Markdown {
		text = Markdown(r, "")
	} else {
		if o.Out == "" {
			o.Out = filepath.Dir(path)
		}
		if err := Write(r, o.Out); err != nil {
			return err
		}
	}
	if o.Doc != "" {
		if err := WriteDoc(r, o.Doc); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}
