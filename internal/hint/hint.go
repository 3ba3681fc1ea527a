// Package hint holds the one error type that carries advice for people: what is wrong, where, and how to fix it.
//
// Engines return plain errors. The parts that face an operator (configuration, host checks, API) wrap them in an Error, so
// that commands print one line with a hint, and exit with one code for a kind of error.
package hint

import (
	"errors"
	"fmt"
)

// Kind classifies an Error for programs. The API sends it as the type of a problem; the zero Kind is an internal error.
type Kind string

// Kinds of errors.
const (
	Internal  Kind = "internal"  // a fault of the program or of the host
	Invalid   Kind = "invalid"   // the request makes no sense
	Refused   Kind = "refused"   // the request makes sense, but not in the present state
	NotFound  Kind = "not-found" // no such holder, link or namespace
	Exhausted Kind = "exhausted" // no address is left
	Timeout   Kind = "timeout"   // the request needs something that did not arrive in time
	Starting  Kind = "starting"  // the node is still starting: the same request may work in a moment
	Usage     Kind = "usage"     // a flag, a file or a command line is wrong; nothing has been changed
	NoDaemon  Kind = "no-daemon" // no daemon answers at the socket
)

// Exit codes of the commands, as the outward contract fixes them.
const (
	ExitDone     = 0
	ExitFailed   = 1
	ExitUsage    = 2
	ExitNoDaemon = 3
)

// Error is an error with a hint. It is a value of the operator's world: Subject is a flag or a file, Hint is a full sentence
// that says how to fix it.
type Error struct {
	Kind    Kind
	Subject string // the flag or the file that is wrong, such as "--range"; empty: none
	Err     error  // never nil
	Hint    string // empty: none
}

// New returns an Error without a subject. The format may wrap errors with %w.
func New(kind Kind, hint, format string, args ...any) *Error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...), Hint: hint}
}

// Refuse returns an Error of kind Usage about a flag or a file: the program does not start, and has changed nothing.
func Refuse(subject, hint, format string, args ...any) *Error {
	return &Error{Kind: Usage, Subject: subject, Err: fmt.Errorf(format, args...), Hint: hint}
}

// Error implements error.
func (e *Error) Error() string {
	if e.Subject == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s: %v", e.Subject, e.Err)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode returns the exit code of a command that ends with e.
func (e *Error) ExitCode() int {
	switch e.Kind {
	case Usage, Invalid:
		return ExitUsage
	case NoDaemon:
		return ExitNoDaemon
	default:
		return ExitFailed
	}
}

// Of returns the hint and the exit code of err: those of the outermost Error that err wraps, else none and ExitFailed. It
// returns ExitDone for nil.
func Of(err error) (hint string, code int) {
	if err == nil {
		return "", ExitDone
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Hint, e.ExitCode()
	}
	return "", ExitFailed
}
