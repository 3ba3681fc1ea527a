package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/capture/pcapng"
	"weft/internal/hint"
	"weft/internal/plural"
	"weft/internal/printable"
	"weft/internal/privatefile"
	"weft/internal/usage"
)

func newCaptureCommand(e *env) *cobra.Command {
	var r api.CaptureRequest
	var file string
	cmd := &cobra.Command{
		Use:   "capture [flags] [FILTER]",
		Short: "Show the frames between this node and its peers, decrypted, or write them for Wireshark",
		Long: "Show the frames between this node and its peers: sent frames before encryption, received frames after\n" +
			"decryption. Frames on the kernel path are included. A capture never delays traffic: frames that arrive faster\n" +
			"than the capture can read them are left out and counted.\n\n" +
			"FILTER has the syntax of tcpdump: [src|dst] host ADDR, net CIDR, port N, portrange N-M, each optionally with a\n" +
			"protocol before it (arp, ip, ip6, icmp, icmp6, tcp, udp, sctp); ether [src|dst] host MAC, ether proto N;\n" +
			"broadcast, multicast, vlan [N], less N, greater N; combined with and, or, not and parentheses.",
		Example: "  weft capture tcp port 80 and host 10.32.0.1\n  weft capture -w - | wireshark -k -i -",
		Args:    usage.Arguments(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Filter = strings.Join(args, " ")
			return runCapture(cmd.Context(), e, r, file)
		},
	}
	cmd.Flags().StringVarP(&file, "write", "w", "", "write pcapng to this `file`, - for standard output")
	cmd.Flags().StringVar(&r.Peer, "peer", "", "only frames to and from this `peer`, by ID or nickname")
	completeFlag(cmd, "peer", e.complete(otherNodes))
	cmd.Flags().IntVarP(&r.Count, "count", "c", 0, "stop after this number of `frames` (default: at Ctrl-C)")
	cmd.Flags().IntVar(&r.Snaplen, "snaplen", 0, "capture this number of `bytes` of each frame (default: all)")
	return cmd
}

func runCapture(ctx context.Context, e *env, r api.CaptureRequest, path string) error {
	stream, err := e.client().Capture(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	out, err := openSink(e, path, r.Filter) // only after the daemon has accepted the request, because this replaces the file
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(e.stderr, listening(r))
	frames, lost, err := follow(stream, out)
	if ctx.Err() != nil {
		err = nil // Ctrl-C is the normal end of a capture
	}
	if err == nil {
		err = out.Lost(lost)
	}
	_, _ = fmt.Fprintf(e.stderr, "%s captured, %d left out because they arrived too fast\n", plural.Count(frames, "frame"), lost)
	return errors.Join(err, out.Close())
}

// listening says what a capture shows, and how it ends.
func listening(r api.CaptureRequest) string {
	text := "listening for frames"
	if r.Peer != "" {
		text += " to and from " + printable.Text(r.Peer)
	} else {
		text += " to and from all peers"
	}
	if r.Filter != "" {
		text += ", filter " + printable.Text(r.Filter)
	}
	return text + "; Ctrl-C ends the capture"
}

// sink is the output of a capture. Its methods are called by one goroutine.
type sink interface {
	// Frame writes a frame. It may buffer the frame until the next Idle or Lost.
	Frame(f pcapng.Frame) error
	// Idle flushes the buffer. It is called when no further frame is ready.
	Idle() error
	// Lost ends a complete capture: it records the number of frames that were left out, and flushes the buffer.
	Lost(frames uint64) error
	// Close releases the output. It is called once, after all other methods and also after an error.
	Close() error
}

// openSink returns the sink for --write: lines on standard output if path is empty, else pcapng to standard output if
// path is "-", else pcapng to the file at path, which is always a new file.
func openSink(e *env, path, filter string) (sink, error) {
	if path == "" {
		return textSink{e.terminal()}, nil
	}
	file, err := createCapture(e, path)
	if err != nil {
		return nil, err
	}
	w, err := pcapng.NewWriter(file, "weft "+buildVersion(), filter)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--write: %s: %w", path, err), file.Close())
	}
	if err := w.Flush(); err != nil {
		return nil, errors.Join(fmt.Errorf("--write: %w", errors.Unwrap(err)), file.Close())
	}
	return fileSink{file, w}, nil
}

// textSink prints one line per frame.
type textSink struct{ w io.Writer }

// Frame implements sink.
func (s textSink) Frame(f pcapng.Frame) error { return printFrame(s.w, f) }

// Idle implements sink.
func (textSink) Idle() error { return nil }

// Lost implements sink.
func (textSink) Lost(uint64) error { return nil }

// Close implements sink.
func (textSink) Close() error { return nil }

// fileSink writes pcapng to a file.
type fileSink struct {
	file io.Closer
	w    *pcapng.Writer
}

// Frame implements sink.
func (s fileSink) Frame(f pcapng.Frame) error { return s.w.Write(f.At, f.Path, f.Length, f.Data) }

// Idle implements sink.
func (s fileSink) Idle() error { return s.w.Flush() }

// Lost implements sink.
func (s fileSink) Lost(frames uint64) error { return s.w.Lost(frames) }

// Close implements sink.
func (s fileSink) Close() error { return s.file.Close() }

// createCapture opens the output of --write, which is standard output for "-".
func createCapture(e *env, path string) (io.WriteCloser, error) {
	if path == "-" {
		return keepOpen{e.stdout}, nil
	}
	file, err := privatefile.Create(path) // frames contain the traffic of pods in plain text
	if err != nil {
		return nil, hint.Refuse("--write", "Name a new file in a writable folder, or one of your own to replace.", "%w", err)
	}
	return file, nil
}

// keepOpen is a Writer with a Close that does nothing.
type keepOpen struct{ io.Writer }

// Close implements io.Closer.
func (keepOpen) Close() error { return nil }

// follow writes the frames of a stream to out until the stream ends, and calls out.Idle when the next frame is not there
// yet. It returns the number of frames that were written, and the number that the daemon left out.
func follow(stream io.Reader, out sink) (frames int, lost uint64, err error) {
	r, err := pcapng.NewReader(stream)
	if err != nil {
		return 0, 0, err
	}
	next := make(chan pcapng.Frame, 64)
	ended := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		defer close(next)
		for {
			f, err := r.Next()
			if err != nil {
				ended <- err
				return
			}
			select {
			case next <- f:
			case <-stop:
				ended <- nil
				return
			}
		}
	}()
	for f := range next {
		frames++
		if err = out.Frame(f); err == nil && len(next) == 0 {
			err = out.Idle()
		}
		if err != nil {
			close(stop)
			return frames, 0, err
		}
	}
	if err = <-ended; errors.Is(err, io.EOF) {
		err = nil
	}
	return frames, r.Lost(), err
}

// printFrame prints one line for a frame.
func printFrame(w io.Writer, f pcapng.Frame) error {
	arrow, peer := "from", f.Path.Peer
	if f.Path.Sent {
		arrow = "to"
	}
	if peer == "" {
		peer = "all"
	}
	_, err := fmt.Fprintf(w, "%s %4s %s: %s\n", f.At.Local().Format("15:04:05.000000"), arrow, peer, pcapng.Text(f.Data, f.Length))
	return err
}
