package api

import "fmt"

// Problem is an error as the API sends it: problem details (RFC 9457) with a hint.
type Problem struct {
	Kind   Kind   `json:"type"`
	Status int    `json:"status"` // of HTTP
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"` // the mend, a sentence
}

// Kind says what sort of problem it is, for programs.
type Kind string

// Kinds of problem.
const (
	KindInvalid   Kind = "invalid"   // the request makes no sense
	KindRefused   Kind = "refused"   // it does, but not in this state
	KindNotFound  Kind = "not-found" // no such owner, link or namespace
	KindExhausted Kind = "exhausted" // no address is left
	KindTimeout   Kind = "timeout"   // what it needs did not come in time
	KindStarting  Kind = "starting"  // the node is not up yet: the same request may work in a moment
	KindInternal  Kind = "internal"
)

// Error implements error.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return fmt.Sprintf("the daemon answered with status %d", p.Status)
	}
	return p.Detail
}
