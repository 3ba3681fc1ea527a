package sample

import (
	"fmt"
	"slices"
	"strings"
)

// Underlay is the kind of network between the hosts.
type Underlay string

// Underlays of a sample. Results of earlier versions have none, which means Veth.
const (
	// PlainUnderlay has no tunnel or UDP segmentation offload, like a plain network card.
	PlainUnderlay Underlay = "plain"
	// Veth passes batches of up to 64 KB as one packet.
	Veth Underlay = "veth"
)

// Placement is which cores the hosts use.
type Placement string

// Placements of a sample. Results of earlier versions have none, which means Free.
const (
	// Free lets all processes use all cores.
	Free Placement = "free"
	// Pinned gives each host its own share of the cores.
	Pinned Placement = "pinned"
)

// Setting is how the hosts of a sample were connected and placed. Only figures of the same setting are compared.
type Setting struct {
	Underlay  Underlay  `json:"underlay,omitempty"`
	Placement Placement `json:"placement,omitempty"`
}

// Settings returns all settings, in the order of runs and reports.
func Settings() []Setting {
	return []Setting{{PlainUnderlay, Free}, {Veth, Free}, {PlainUnderlay, Pinned}, {Veth, Pinned}}
}

// AllSettings is the name that ParseSettings takes for all settings.
const AllSettings = "all"

// ParseSettings returns the settings with the given names, as String returns them, in the order of Settings.
func ParseSettings(names []string) ([]Setting, error) {
	var known []string
	for _, s := range Settings() {
		known = append(known, s.String())
	}
	var chosen []Setting
	for _, name := range names {
		if name != AllSettings && !slices.Contains(known, name) {
			return nil, fmt.Errorf("sample: setting %q is unknown: use %s or %s", name, strings.Join(known, ", "), AllSettings)
		}
	}
	for i, s := range Settings() {
		if slices.Contains(names, known[i]) || slices.Contains(names, AllSettings) {
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}

// String returns the name of the setting, such as "plain" or "veth-pinned".
func (s Setting) String() string {
	s = s.orDefault()
	if s.Placement == Pinned {
		return string(s.Underlay) + "-" + string(Pinned)
	}
	return string(s.Underlay)
}

// Title returns the setting for people, such as "plain underlay, pinned".
func (s Setting) Title() string {
	s = s.orDefault()
	return fmt.Sprintf("%s underlay, %s", s.Underlay, s.Placement)
}

// orDefault returns the setting with values for missing fields.
func (s Setting) orDefault() Setting {
	if s.Underlay == "" {
		s.Underlay = Veth
	}
	if s.Placement == "" {
		s.Placement = Free
	}
	return s
}

// Settings returns the settings of the samples, in the order of the function Settings. It is never empty.
func (r *Results) Settings() []Setting {
	var found []Setting
	for _, s := range Settings() {
		if slices.ContainsFunc(r.Samples, func(x Sample) bool { return x.orDefault() == s }) {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return []Setting{Setting{}.orDefault()}
	}
	return found
}

// In returns the results with the samples of one setting only. It shares everything else with r.
func (r *Results) In(s Setting) *Results {
	part := *r
	part.Samples = nil
	for _, x := range r.Samples {
		if x.orDefault() == s.orDefault() {
			part.Samples = append(part.Samples, x)
		}
	}
	return &part
}
