package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/term"

	"weft/internal/api"
)

// Escape sequences of the live screen (ECMA-48, and xterm's private modes 1049 and 25).
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // another screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	goHome      = "\x1b[H"
	clearLine   = "\x1b[K" // from the cursor to the end
	clearBelow  = "\x1b[J"
)

// ctrlC is what Ctrl-C sends in raw mode.
const ctrlC = 3

// screen is a terminal in raw mode that shows another screen than the shell's.
type screen struct {
	in, out *os.File
	before  *term.State
}

func openScreen(in, out *os.File) (*screen, error) {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	s := &screen{in, out, before}
	if _, err := out.WriteString(enterScreen); err != nil {
		return nil, errors.Join(fmt.Errorf("the terminal: %w", err), s.close())
	}
	return s, nil
}

// close restores the terminal.
func (s *screen) close() error {
	_, err := s.out.WriteString(leaveScreen)
	return errors.Join(err, term.Restore(int(s.in.Fd()), s.before))
}

// show replaces what the screen shows, in one write. Raw mode needs a carriage return.
func (s *screen) show(lines []string) error {
	var b bytes.Buffer
	b.WriteString(goHome)
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + clearLine)
	}
	b.WriteString(clearBelow)
	_, err := s.out.Write(b.Bytes())
	return err
}

// keys passes on what is typed until the input ends, which may be after the end of the screen.
func keys(in *os.File) <-chan byte {
	c := make(chan byte, 16)
	go func() {
		var b [1]byte
		for {
			if n, err := in.Read(b[:]); err != nil || n == 0 {
				return
			}
			c <- b[0]
		}
	}()
	return c
}

// runLiveTop shows documents on a terminal until the stream or ctx ends, or q is typed. The terminal is restored in any case.
func runLiveTop(ctx context.Context, client *api.Client, o topOptions, in, out *os.File, color bool) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP) // and the signals that end every command
	defer stop()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)

	s, err := openScreen(in, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	documents, ended := make(chan api.Top), make(chan error, 1)
	stream, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		ended <- client.Top(stream, o.TopRequest, func(t api.Top) error {
			select {
			case documents <- t:
				return nil
			case <-stream.Done():
				return stream.Err()
			}
		})
	}()
	typed, view, last := keys(in), topView{sort: o.sort, live: true, display: display{color: color}}, api.Top{}
	for {
		if view.width, view.height, err = term.GetSize(int(out.Fd())); err != nil {
			return fmt.Errorf("the terminal: %w", err)
		}
		if err := s.show(view.lines(last)); err != nil {
			return fmt.Errorf("the terminal: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if ctx.Err() != nil {
				return nil // a signal has ended the stream as well
			}
			return err
		case last = <-documents:
		case <-resized:
		case key := <-typed:
			switch key {
			case 'q', 'Q', ctrlC:
				return nil
			case 's', 'S':
				view.sort = nextSort(view.sort)
			}
		}
	}
}

// nextSort returns the order after another one.
func nextSort(order string) string {
	return sortOrders[(slices.Index(sortOrders, order)+1)%len(sortOrders)]
}
