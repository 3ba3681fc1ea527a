package report

import (
	"fmt"
	"io"
	"path/filepath"
)

// Options configure Render.
type Options struct {
	// Markdown is whether to print the report only, with links to pictures, and write no files to Out.
	Markdown bool
	// Out is the folder to write to; if empty, the folder of the results.
	Out string
	// Doc, unless empty, is a page to which the report is also written.
	Doc string
}

// Render reads the results at path, writes the report and its pictures again, and prints the report to w.
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
