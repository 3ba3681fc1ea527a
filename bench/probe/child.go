package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"weft/bench/lab"
)

// roleVariable is the environment variable with the role of a child process.
const roleVariable = "BENCH_PROBE_ROLE"

// request is a message to a child, as a line of JSON. Each role uses some of the fields.
type request struct {
	// Addr is the address to listen on or to connect to.
	Addr netip.AddrPort
	// Size is the payload of a datagram in bytes, Clients the number of concurrent clients.
	Size, Clients int
	// Burst is the number of a burst of datagrams, Rate its rate per second; 0 means as fast as possible.
	Burst uint64
	Rate  float64
	// Length is the duration of the measurement.
	Length time.Duration
}

// answer is the response to a request. Each role sets some of the fields.
type answer struct {
	Addr      netip.AddrPort
	Count     Count
	Trips     []float64
	PerSecond float64
	Error     string
}

// roles are the functions of children. A role handles requests from a stream until the stream ends.
var roles = map[string]func(s *stream) error{
	"udp-receive": receiveUDP,
	"udp-send":    sendUDP,
	"echo":        serveEcho,
	"requests":    sendRequests,
	"connects":    openConnections,
	"delay":       delayPackets,
}

// Child executes the role of this process and exits, if the process is a child of this package; else it does nothing. A
// program that uses this package must call it first, because children run the program of their parent.
func Child() {
	name := os.Getenv(roleVariable)
	if name == "" {
		return
	}
	role := roles[name]
	if role == nil {
		fmt.Fprintf(os.Stderr, "probe: no role %q\n", name)
		os.Exit(2)
	}
	s := &stream{in: json.NewDecoder(os.Stdin), out: json.NewEncoder(os.Stdout)}
	if err := role(s); err != nil && !errors.Is(err, io.EOF) {
		_ = s.out.Encode(answer{Error: err.Error()})
		os.Exit(1)
	}
	os.Exit(0)
}

// stream is the connection of a child to its parent.
type stream struct {
	in  *json.Decoder
	out *json.Encoder
}

// next returns the next request, and io.EOF after the last.
func (s *stream) next() (r request, err error) {
	err = s.in.Decode(&r)
	return r, err
}

func (s *stream) reply(a answer) error { return s.out.Encode(a) }

// child is a process in the namespace of an end and on its cores. It is for one goroutine at a time.
type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *json.Decoder
	stderr bytes.Buffer
}

// start starts a child. The caller must close it.
func start(at lab.End, role string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	c := &child{cmd: at.Command(context.Background(), self)}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	c.cmd.Stderr = &c.stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("probe: starting a child: %w", err)
	}
	c.out = json.NewDecoder(out)
	return c, nil
}

// ask sends a request and returns the answer. The end of ctx ends the child.
func (c *child) ask(ctx context.Context, r request) (a answer, err error) {
	stop := context.AfterFunc(ctx, func() { _ = c.cmd.Process.Kill() })
	defer stop()
	err = json.NewEncoder(c.in).Encode(r)
	if err == nil {
		err = c.out.Decode(&a)
	}
	switch {
	case ctx.Err() != nil:
		return a, ctx.Err()
	case err != nil:
		return a, fmt.Errorf("probe: the child ended: %w: %s", err, strings.TrimSpace(c.stderr.String()))
	case a.Error != "":
		return a, errors.New(a.Error)
	}
	return a, nil
}

// close ends the child and waits for it. It may be called more than once.
func (c *child) close() {
	_ = c.in.Close()
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// once starts a child for one request and returns its answer.
func once(ctx context.Context, at lab.End, role string, r request) (answer, error) {
	c, err := start(at, role)
	if err != nil {
		return answer{}, err
	}
	defer c.close()
	return c.ask(ctx, r)
}
