package statuspage

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weft/internal/api"
)

// fact is a line of the summary of this node. It has one or more values.
type fact struct {
	Name   string
	Values []value
}

// value is a text with a second one at the end of its line, or with a time.
type value struct {
	Text  string
	Class string // "code" for a text that programs read; empty: plain
	Tail  string // such as a state or a count
	Tone  string // of Tail: "good" or "bad"; empty: plain
	At    *moment
}

func newFacts(s api.Status, now time.Time) []fact {
	up := newMoment(s.Since, now)
	facts := []fact{
		{"Address", []value{{Text: s.Advertise.String(), Class: "code"}}},
		{"Targets", targetValues(s.Targets)},
		{"Gateway", gatewayValues(s.Exposed)},
		{"Encryption", encryptionValues(s, now)},
		{"Datapath", plain(string(s.Datapath))},
		{"MTU of pods", plain(countText(s.MTU) + " bytes")},
		{"Bridge", plain(s.Bridge + " with " + s.Tap)},
		{"MAC table", plain(countText(s.FDB) + " learned")},
		{"Offloads", plain(orDash(strings.Join(s.Offload, ", ")))},
		{"Dropped", dropValues(s.Drops)},
	}
	if g := s.Guard; g.Bound+g.Open > 0 || len(g.Dropped) > 0 {
		values := plain(fmt.Sprintf("%s bound, %s open", countText(g.Bound), countText(g.Open)))
		if len(g.Dropped) > 0 {
			values = append(values, dropValues(g.Dropped)...)
		}
		facts = append(facts, fact{"Guard", values})
	}
	return append(facts, fact{"Started", []value{{At: &up}}})
}

// plain returns one value.
func plain(text string) []value { return []value{{Text: text}} }

func orDash(text string) string {
	if text == "" {
		return dash
	}
	return text
}

// fewTargets is the number of targets up to which all are shown, and the most that are shown because they are not reached.
const fewTargets = 8

func targetValues(targets []api.Target) (values []value) {
	if len(targets) > fewTargets {
		missing := slices.DeleteFunc(slices.Clone(targets), func(t api.Target) bool { return t.Error == "" })
		reached := fmt.Sprintf("%s of %s reached", countText(len(targets)-len(missing)), countText(len(targets)))
		if missing = missing[:min(len(missing), fewTargets)]; len(missing) == 0 {
			return plain(reached)
		}
		return append(targetValues(missing), value{Text: reached})
	}
	for _, t := range targets {
		v := value{Text: t.Addr, Class: "code", Tail: "reached", Tone: "good"}
		if t.Error != "" { // a condition describes it
			v.Tail, v.Tone = "not reached", "bad"
		}
		values = append(values, v)
	}
	if len(targets) == 0 {
		return plain("none")
	}
	return values
}

// gatewayValues returns the addresses of the bridge, which pods use as gateway and as name server.
func gatewayValues(exposed []netip.Prefix) (values []value) {
	for _, p := range exposed {
		values = append(values, value{Text: p.String(), Class: "code"})
	}
	if len(exposed) == 0 {
		return plain("none: the host is not exposed")
	}
	return values
}

func encryptionValues(s api.Status, now time.Time) []value {
	if !s.Encrypted {
		return plain("off")
	}
	values := plain("on")
	switch {
	case s.Network == api.NetworkSecret && s.Secrets > 1:
		values = plain(fmt.Sprintf("on, %d secrets", s.Secrets))
	case s.Network == api.NetworkSecret:
		values = plain("on, by a secret")
	case s.Network == api.NetworkIdentities:
		values = plain("on, by identities")
	case s.Network == api.NetworkBoth:
		values = plain("on, by identities and a secret")
	}
	if s.Identity != nil {
		expires := newMoment(s.Identity.Expires, now)
		values = append(values, value{Text: "certificate expires", At: &expires})
	}
	return values
}

// dropValues returns the counts of drops, the largest first.
func dropValues(drops map[string]uint64) (values []value) {
	for _, d := range sortedDrops(drops) {
		values = append(values, value{Text: d.Reason, Tail: countText(d.Count)})
	}
	if len(values) == 0 {
		return plain("nothing")
	}
	return values
}

// drop is the number of frames and datagrams that were dropped for a reason.
type drop struct {
	Reason string
	Count  uint64
}

// reasonWords makes words of the code of a reason, such as "frame_exceeds_path_mtu".
var reasonWords = strings.NewReplacer("_", " ", "mtu", "MTU")

// sortedDrops returns the drops that are not zero, the most frequent first.
func sortedDrops(drops map[string]uint64) (list []drop) {
	for _, reason := range slices.Sorted(maps.Keys(drops)) {
		if n := drops[reason]; n > 0 {
			list = append(list, drop{reasonWords.Replace(reason), n})
		}
	}
	slices.SortStableFunc(list, func(a, b drop) int { return cmp.Compare(b.Count, a.Count) })
	return list
}
