// Package gate compares the ratios of a run of the bench with stored ratios of an earlier run on the same machine. It
// chooses ratios that vary little between runs.
package gate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"weft/bench/sample"
	"weft/internal/hint"
)

// DefaultFile is the path of the stored ratios in the source tree.
const DefaultFile = "bench/gate.json"

// defaultMargin is the margin of a new file.
const defaultMargin = 0.1

// Ratio is a figure of a driver, divided by that of another driver in the same round and setting.
type Ratio struct {
	Setting string        `json:"setting"`
	Driver  string        `json:"driver"`
	Base    string        `json:"base"`
	Load    string        `json:"load"`
	Metric  sample.Metric `json:"metric"`
	// Median, Min and Max are over the rounds.
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Rounds int     `json:"rounds"`
}

// File is the content of a file of stored ratios.
type File struct {
	// Command, Date, Weft, CPU and Cores describe the run that the ratios are from.
	Command string    `json:"command"`
	Date    time.Time `json:"date"`
	Weft    string    `json:"weft"`
	CPU     string    `json:"cpu"`
	Cores   int       `json:"cores"`
	// Rounds and Seconds are those of the run. A run that is compared should have the same.
	Rounds  int `json:"rounds"`
	Seconds int `json:"seconds"`
	// Margin is the share by which a median may be beyond the stored spread.
	Margin float64 `json:"margin"`
	Ratios []Ratio `json:"ratios"`
}

// New returns the steady ratios of a run. It returns an error if there are none.
func New(r *sample.Results) (*File, error) {
	f := &File{
		Command: r.Command, Date: r.Date, Weft: r.Weft, CPU: r.Machine.CPU, Cores: r.Machine.Cores,
		Rounds: r.Rounds, Seconds: r.Seconds, Margin: defaultMargin,
	}
	for _, s := range r.Settings() {
		part := r.In(s)
		for _, d := range r.Drivers {
			if !strings.HasPrefix(d.Name, "weft") {
				continue
			}
			for _, c := range steady {
				if q, ok := c.ratio(part, d.Name); ok {
					q.Setting = s.String()
					f.Ratios = append(f.Ratios, q)
				}
			}
		}
	}
	if len(f.Ratios) == 0 {
		return nil, errors.New("gate: the run has no ratio to store: it needs a weft driver, vxlan, and one of the loads " +
			strings.Join(Loads(), ", "))
	}
	return f, nil
}

// Read reads a file of stored ratios.
func Read(path string) (*File, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.New(hint.Usage, fmt.Sprintf("Write the ratios of a run on this machine, as root: weft-bench run --gate-write=%s", path),
			"gate: there are no stored ratios: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("gate: %w", err)
	}
	var f File
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("gate: %s: %w", path, err)
	}
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("gate: %s: %w", path, err)
	}
	return &f, nil
}

// check returns an error for a file that Write cannot have written.
func (f *File) check() error {
	if len(f.Ratios) == 0 || f.Rounds < 1 || f.Seconds < 1 || f.Margin < 0 || f.Margin >= 1 {
		return errors.New("it needs ratios, rounds, seconds, and a margin from 0 to 1")
	}
	for _, q := range f.Ratios {
		settings, err := sample.ParseSettings([]string{q.Setting})
		if err != nil {
			return err
		}
		if len(settings) != 1 || q.Driver == "" || q.Base == "" || q.Load == "" || q.Min <= 0 || q.Median < q.Min || q.Max < q.Median {
			return fmt.Errorf("the ratio %q is not valid", q.name())
		}
	}
	return nil
}

// Write writes the file.
func (f *File) Write(path string) error {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	return nil
}

// Settings returns the names of the settings of the ratios.
func (f *File) Settings() []string {
	return f.names(func(q Ratio) []string { return []string{q.Setting} })
}

// Drivers returns the names of the drivers that the ratios need.
func (f *File) Drivers() []string {
	return f.names(func(q Ratio) []string { return []string{q.Driver, q.Base} })
}

// Loads returns the names of the loads that the ratios need.
func (f *File) Loads() []string { return f.names(func(q Ratio) []string { return []string{q.Load} }) }

// names returns the names that of returns for each ratio, once each.
func (f *File) names(of func(Ratio) []string) (names []string) {
	for _, q := range f.Ratios {
		for _, n := range of(q) {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}
