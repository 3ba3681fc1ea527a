package daemon

import "fmt"

// Refusal is why a node does not start: something is wrong with what it was given, and nothing was changed on the
// host. It is one line for people, and a hint.
type Refusal struct {
	// Subject is the flag or the file that is wrong, such as "--range" or "/var/lib/weft/node.key".
	Subject string
	// Err says what is wrong with it.
	Err error
	// Hint says how to mend it, a sentence.
	Hint string
}

// Error implements error.
func (r *Refusal) Error() string { return fmt.Sprintf("%s: %v", r.Subject, r.Err) }

// Unwrap returns Err.
func (r *Refusal) Unwrap() error { return r.Err }

// refuse returns a Refusal with a formatted reason, of which %w arguments can be unwrapped.
func refuse(subject, hint, format string, args ...any) *Refusal {
	return &Refusal{Subject: subject, Err: fmt.Errorf(format, args...), Hint: hint}
}
