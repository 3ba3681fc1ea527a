package hint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"weft/internal/hint"
)

func TestErrorsNameTheirSubject(t *testing.T) {
	err := hint.Refuse("--state-dir", "Name a directory.", "cannot open: %w", fs.ErrNotExist)
	if got := err.Error(); got != "--state-dir: cannot open: file does not exist" {
		t.Errorf("%q", got)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("the cause is not wrapped")
	}
	if got := hint.New(hint.Refused, "", "in use").Error(); got != "in use" {
		t.Errorf("%q", got)
	}
}

func TestHintAndExitCode(t *testing.T) {
	for _, tt := range []struct {
		err  error
		hint string
		code int
	}{
		{nil, "", hint.ExitDone},
		{errors.New("x"), "", hint.ExitFailed},
		{hint.Refuse("--mtu", "Choose another.", "x"), "Choose another.", hint.ExitUsage},
		{hint.New(hint.Invalid, "Write it so.", "x"), "Write it so.", hint.ExitUsage},
		{hint.New(hint.Refused, "Wait.", "x"), "Wait.", hint.ExitFailed},
		{hint.New(hint.NoDaemon, "Start it.", "x"), "Start it.", hint.ExitNoDaemon},
		{fmt.Errorf("outer: %w", hint.New(hint.Refused, "Inner.", "x")), "Inner.", hint.ExitFailed},
	} {
		if got, code := hint.Of(tt.err); got != tt.hint || code != tt.code {
			t.Errorf("%v: hint %q, code %d; want %q, %d", tt.err, got, code, tt.hint, tt.code)
		}
	}
}
