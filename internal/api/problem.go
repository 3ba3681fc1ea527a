package api

import (
	"fmt"

	"weft/internal/hint"
)

// Problem is an error of the API: problem details (RFC 9457) with a hint.
type Problem struct {
	Kind   Kind   `json:"type"`
	Status int    `json:"status"` // of HTTP
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"` // how to fix it, a full sentence
}

// Kind classifies a Problem for programs.
type Kind = hint.Kind

// Kinds of problems.
const (
	KindInvalid   = hint.Invalid
	KindRefused   = hint.Refused
	KindNotFound  = hint.NotFound
	KindExhausted = hint.Exhausted
	KindTimeout   = hint.Timeout
	KindStarting  = hint.Starting
	KindInternal  = hint.Internal
)

// Error implements error.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return fmt.Sprintf("the daemon answered with status %d", p.Status)
	}
	return p.Detail
}
