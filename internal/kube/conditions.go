package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"weft/internal/api"
	"weft/internal/printable"
)

// conditionsFile holds the conditions that have an event, in the state directory, so that a restart does not publish them again.
const conditionsFile = "kube-conditions.json"

// Times of the events of conditions.
const (
	// conditionBegins is how long a condition must last until it has an event: shorter ones are part of a start.
	conditionBegins = 10 * time.Second
	// conditionEnds is how long a condition must be away until it has ended: one that comes and goes has one event.
	conditionEnds = 30 * time.Second
	// conditionRepeats is the time between two events of a condition that lasts. API servers delete events after an hour.
	conditionRepeats = time.Hour
)

// maxEventMessage bounds the message of an event, in bytes; the API has this limit (events.k8s.io, "note").
const maxEventMessage = 1024

// publishedCondition is a condition that has an event.
type publishedCondition struct {
	Code    string    `json:"code"`
	Title   string    `json:"title"`
	Text    string    `json:"text"`
	Message string    `json:"message"` // of the event: the same at each repetition, so that the API server counts one event
	Since   time.Time `json:"since"`
	At      time.Time `json:"at"` // of the latest event

	gone time.Time // when it was missing first; zero: it is there
}

// conditions publishes the conditions of the daemon as events of the Node: a warning when one begins, and a normal event when it has
// ended. Conditions of severity info have none. The recorder drops events beyond 25, and one each five minutes after that.
type conditions struct {
	node     string
	path     string
	recorder record.EventRecorder
	log      *slog.Logger

	// owned by the caller of observe
	published []*publishedCondition
}

// newConditions reads which conditions have an event already.
func newConditions(cfg Config, recorder record.EventRecorder) (*conditions, error) {
	c := &conditions{node: cfg.Node, path: filepath.Join(cfg.StateDir, conditionsFile), recorder: recorder, log: cfg.Log}
	text, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("kube: %w", err)
	}
	if err := json.Unmarshal(text, &c.published); err != nil {
		c.published = nil // events are published a second time at worst
		c.log.Warn("the file of published conditions is damaged and is written again", "file", c.path, "err", err)
	}
	c.published = slices.DeleteFunc(c.published, func(p *publishedCondition) bool { return p == nil })
	return c, nil
}

// observe publishes what has changed since the last call, given the present conditions of the daemon.
func (c *conditions) observe(now time.Time, present []api.Condition) {
	changed := false
	there := map[*publishedCondition]bool{}
	for _, p := range present {
		if p.Severity == api.SeverityInfo {
			continue
		}
		known := c.find(p, there)
		if known == nil {
			if now.Sub(p.Since) < conditionBegins {
				continue
			}
			known = &publishedCondition{Code: p.Code, Title: p.Title, Text: p.Text, Message: messageOf(p)}
			c.published = append(c.published, known)
		}
		there[known] = true
		known.gone, known.Since = time.Time{}, p.Since
		if now.Sub(known.At) >= conditionRepeats {
			known.At, changed = now, true
			c.event(corev1.EventTypeWarning, reasonOf(p.Code), known.Message)
		}
	}
	c.published = slices.DeleteFunc(c.published, func(p *publishedCondition) bool {
		switch {
		case there[p]:
			return false
		case p.gone.IsZero():
			p.gone = now
		}
		if now.Sub(p.gone) < conditionEnds {
			return false
		}
		changed = true
		c.event(corev1.EventTypeNormal, reasonOf(p.Code)+"Ended", bound("Ended: "+p.Title+". "+p.Text))
		return true
	})
	if !changed {
		return
	}
	if err := replaceJSON(c.path, c.published); err != nil {
		c.log.Warn("writing the published conditions failed: events are repeated after a restart", "err", err)
	}
}

// find returns the published condition that a present one is, but none of taken; nil: it is new. A restarted daemon has the same
// conditions with other times, and texts contain numbers that change: one of both is the same.
func (c *conditions) find(present api.Condition, taken map[*publishedCondition]bool) *publishedCondition {
	for _, p := range c.published {
		if p.Code == present.Code && !taken[p] && (p.Since.Equal(present.Since) || p.Text == present.Text) {
			return p
		}
	}
	return nil
}

// event publishes an event of the Node. By convention of the kubelet, the UID of a Node in events is its name, so that "kubectl describe
// node" finds them also for a Node that was created again.
func (c *conditions) event(kind, reason, message string) {
	c.recorder.Event(&corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: c.node, UID: types.UID(c.node)}, kind, reason, message)
}

// reasonOf returns the code of a condition as the reason of an event: HostPortsFlushed for host_ports_flushed.
func reasonOf(code string) string {
	var out strings.Builder
	for word := range strings.SplitSeq(code, "_") {
		if word != "" {
			out.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return out.String()
}

// messageOf returns the text and the remedy of a condition. The text is cut first: a remedy contains commands.
func messageOf(c api.Condition) string {
	if c.Remedy == "" {
		return bound(c.Text)
	}
	remedy := bound(" " + c.Remedy)
	return cut(printable.Text(c.Text), max(maxEventMessage-len(remedy), 0)) + remedy
}

// bound cuts a message to what an event may have. Texts contain names that other nodes chose, and kubectl prints them to a terminal.
func bound(text string) string { return cut(printable.Text(text), maxEventMessage) }

// cut shortens a text to a number of bytes, at the border of a rune, and marks that with an ellipsis.
func cut(text string, size int) string {
	const mark = "…"
	if len(text) <= size {
		return text
	}
	end := max(size-len(mark), 0)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	if size < len(mark) {
		return ""
	}
	return text[:end] + mark
}
