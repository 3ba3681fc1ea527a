package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"weft/bench/sample"
)

// ResultsFile is the name of the file with all results of a run.
const ResultsFile = "results.json"

// Read reads a file of results that Write has written.
func Read(path string) (*sample.Results, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	var r sample.Results
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("report: %s: %w", path, err)
	}
	nameUnderlay(&r)
	return &r, nil
}

// nameUnderlay sets the underlay of samples that an earlier version measured with --plain-underlay. It only described the
// underlay.
func nameUnderlay(r *sample.Results) {
	if !strings.HasPrefix(r.Underlay, "veth pairs on a bridge, MTU 1500, sending without segmentation offloads") {
		return
	}
	for i, s := range r.Samples {
		if s.Underlay == "" {
			r.Samples[i].Underlay = sample.PlainUnderlay
		}
	}
}

// JSON returns the results in the format of the file.
func JSON(r *sample.Results) ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	return append(b, '\n'), nil
}

// Write writes results.json, report.md and the pictures into a folder, which it creates if necessary.
func Write(r *sample.Results, dir string) error {
	b, err := JSON(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	for name, text := range map[string][]byte{ResultsFile: b, "report.md": []byte(Markdown(r, ""))} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return Plot(r, dir)
}

// restOfPage is the heading of the first section of a page that WriteDoc keeps.
const restOfPage = "\n## Scale\n"

// WriteDoc writes the report as the page at path, and its pictures into a folder beside the page, named like the page in
// lower case. It keeps the section "Scale" of the page and all sections after it.
func WriteDoc(r *sample.Results, path string) error {
	folder := strings.ToLower(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
	dir := filepath.Join(filepath.Dir(path), folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	text := Markdown(r, folder+"/")
	page, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("report: %w", err)
	}
	if _, rest, ok := strings.Cut(string(page), restOfPage); ok {
		text += restOfPage + rest
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return Plot(r, dir)
}
