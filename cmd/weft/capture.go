package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/capture/pcapng"
)

func newCaptureCommand(e *env) *cobra.Command {
	var r api.CaptureRequest
	var file string
	cmd := &cobra.Command{
		Use:   "capture [flags] [FILTER]",
		Short: "Show frames as they pass between this node and its peers, unsealed, or write them for Wireshark",
		Long: "Show frames as they pass between this node and its peers: before they are sealed, and once they are opened.\n" +
			"Those that the kernel carries are among them. Traffic never waits for a capture: what comes too fast is left\n" +
			"out and counted.\n\n" +
			"FILTER is written as for tcpdump: [src|dst] host ADDR, net CIDR, port N, portrange N-M, each with a protocol\n" +
			"before it (arp, ip, ip6, icmp, icmp6, tcp, udp, sctp) or none; ether [src|dst] host MAC, ether proto N;\n" +
			"broadcast, multicast, vlan [N], less N, greater N; joined by and, or, not and parentheses.",
		Example: "  weft capture tcp port 80 and host 10.32.0.1\n  weft capture -w - | wireshark -k -i -",
		Args:    between(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Filter = strings.Join(args, " ")
			return runCapture(cmd.Context(), e, r, file)
		},
	}
	cmd.Flags().StringVarP(&file, "write", "w", "", "write pcapng to this `file`, - for standard output")
	cmd.Flags().StringVar(&r.Peer, "peer", "", "only frames to and from this `peer`, by ID or nickname")
	cmd.Flags().IntVarP(&r.Count, "count", "c", 0, "end after so many `frames` (default: at Ctrl-C)")
	cmd.Flags().IntVar(&r.Snaplen, "snaplen", 0, "take so many `bytes` of each frame (default: all)")
	return cmd
}

func runCapture(ctx context.Context, e *env, r api.CaptureRequest, path string) (err error) {
	stream, err := e.client().Capture(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	show := func(f pcapng.Frame) error { return printFrame(e.stdout, f) }
	idle := func() error { return nil }
	end := func(uint64) error { return nil }
	if path != "" { // not before the daemon has agreed: what was there is gone then
		file, failed := createCapture(e, path)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		w, failed := pcapng.NewWriter(file, "weft "+buildVersion(), r.Filter)
		if failed != nil {
			return fmt.Errorf("--write: %s: %w", path, failed)
		}
		if failed := w.Flush(); failed != nil {
			return fmt.Errorf("--write: %w", errors.Unwrap(failed))
		}
		show = func(f pcapng.Frame) error { return w.Write(f.At, f.Path, f.Length, f.Data) }
		idle, end = w.Flush, w.Lost
	}
	frames, lost, err := follow(stream, show, idle)
	if ctx.Err() != nil {
		err = nil // Ctrl-C is how it ends
	}
	if err == nil {
		err = end(lost)
	}
	_, _ = fmt.Fprintf(e.stderr, "%d frames captured, %d left out as they came too fast\n", frames, lost)
	return err
}

// createCapture opens the file to write to.
func createCapture(e *env, path string) (io.WriteCloser, error) {
	if path == "-" {
		return keepOpen{e.stdout}, nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) // frames are as secret as what pods say
	if err != nil {
		return nil, &usageError{fmt.Errorf("--write: %w", err), "Name a file in a folder that you can write to."}
	}
	return file, nil
}

type keepOpen struct{ io.Writer }

// Close implements io.Closer.
func (keepOpen) Close() error { return nil }

// follow gives the frames of a stream to show until its end, and calls idle when the next is not there yet.
func follow(stream io.Reader, show func(pcapng.Frame) error, idle func() error) (frames int, lost uint64, err error) {
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
		if err = show(f); err == nil && len(next) == 0 {
			err = idle()
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

// printFrame writes a line for a frame.
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
