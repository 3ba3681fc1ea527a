package harness

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"weft/bench/gate"
	"weft/bench/report"
	"weft/bench/sample"
)

// prepareGate reads the stored ratios of Options.Gate, and sets options that are not set to those that the ratios need. It
// returns nil if the run is not compared.
func (o *Options) prepareGate() (*gate.File, error) {
	if o.Gate == "" && o.GateWrite == "" {
		return nil, nil
	}
	if o.Quick {
		return nil, errors.New("bench: --quick measures other drivers and loads than stored ratios need: use --rounds and --seconds")
	}
	if o.GateWrite != "" {
		// The run takes long, so a path that cannot exist is an error now.
		if _, err := os.Stat(filepath.Dir(o.GateWrite)); err != nil {
			return nil, fmt.Errorf("bench: the folder for stored ratios: %w", err)
		}
	}
	if o.Gate == "" {
		o.choose(gate.DefaultSettings, gate.DefaultDrivers, gate.Loads(), gateRounds, fullSeconds)
		return nil, nil
	}
	f, err := gate.Read(o.Gate)
	if err != nil {
		return nil, err
	}
	o.choose(f.Settings(), f.Drivers(), f.Loads(), f.Rounds, f.Seconds)
	return f, nil
}

// choose sets what the options leave open.
func (o *Options) choose(settings, drivers, loads []string, rounds, seconds int) {
	if len(o.Settings) == 0 && !o.Plain && !o.Pin {
		o.Settings = settings
	}
	if len(o.Drivers) == 0 {
		o.Drivers = drivers
	}
	if len(o.Loads) == 0 {
		o.Loads = loads
	}
	o.Rounds, o.Seconds = or(o.Rounds, rounds), or(o.Seconds, seconds)
}

// finishGate compares the results with the stored ratios, unless they are nil, and writes those of the results to
// Options.GateWrite. Its error lists the ratios that are worse.
func (o *Options) finishGate(stored *gate.File, r *sample.Results, stderr io.Writer) error {
	if o.GateWrite != "" {
		if err := writeGate(r, o.GateWrite); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(stderr, "written to %s: the steady ratios\n", o.GateWrite)
	}
	if stored == nil {
		return nil
	}
	outcome := stored.Compare(r)
	_, _ = io.WriteString(stderr, outcome.Notes())
	return outcome.Err()
}

// WriteGate writes the steady ratios of the results in a file to another file.
func WriteGate(results, path string) error {
	r, err := report.Read(results)
	if err != nil {
		return err
	}
	return writeGate(r, path)
}

func writeGate(r *sample.Results, path string) error {
	f, err := gate.New(r)
	if err != nil {
		return err
	}
	return f.Write(path)
}
