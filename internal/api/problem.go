package api

import "fmt"

// Problem is an error of the API: problem details (RFC 9457) with a hint.
type Problem struct {
	Kind   Kind   `json:"type"`
	Status int    `json:"status"` // of HTTP
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"` // the remedy, a sentence
}

// Kind is the type of a Problem, on which programs can branch.
type Kind string

// Kinds of problems.
const (
	KindInvalid   Kind = "invalid"   // the request is malformed
	KindRefused   Kind = "refused"   // the request is impossible in the present state
	KindNotFound  Kind = "not-found" // no such holder, link or namespace
	KindExhausted Kind = "exhausted" // no address is free
	KindTimeout   Kind = "timeout"   // a condition of the request did not hold in time
	KindStarting  Kind = "starting"  // the node is starting: the same request may succeed soon
	KindInternal  Kind = "internal"
)

// Error implements error.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return fmt.Sprintf("the daemon answered with status %d", p.Status)
	}
	return p.Detail
}
