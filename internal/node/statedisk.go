package node

import (
	"errors"

	"weft/internal/health"
	"weft/internal/hint"
	"weft/internal/statedir"
)

// stateDisk is the file system of the state directory. It implements health.Source and health.Requirement: what is not on disk is not
// assigned, so a node with a full disk takes no pods.
type stateDisk struct{ dir string }

// Findings implements health.Source.
func (s stateDisk) Findings() []health.Finding {
	err := statedir.CheckDisk(s.dir)
	if err == nil {
		return nil
	}
	f := health.Finding{Code: health.StateWriteFailed, Key: s.dir, Text: "State cannot be written: " + err.Error() + "."}
	if e, ok := errors.AsType[*hint.Error](err); ok {
		f.Remedy = e.Hint
	}
	return []health.Finding{f}
}

// Missing implements health.Requirement.
func (s stateDisk) Missing() string {
	if err := statedir.CheckDisk(s.dir); err != nil {
		return "state cannot be written: " + err.Error()
	}
	return ""
}
