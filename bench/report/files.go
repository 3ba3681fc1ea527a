package report

import (
	"encoding/json"
	"fmt"
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
	return &r, nil
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

// WriteDoc writes the report as the page at path, and its pictures into a folder beside the page, named like the page in
// lower case.
func WriteDoc(r *sample.Results, path string) error {
	folder := strings.ToLower(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
	dir := filepath.Join(filepath.Dir(path), folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := os.WriteFile(path, []byte(Markdown(r, folder+"/")), 0o644); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return Plot(r, dir)
}
