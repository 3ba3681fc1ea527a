package nettest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// ProcessConfig configures a background process.
type ProcessConfig struct {
	// Name is the name, without ".log", of the file in the host's folder for the output; default: the program's name.
	Name string
	// Argv is the program and its arguments.
	Argv []string
	// Env is added to the environment of the calling process, as "K=V".
	Env []string
}

// Process is a background process in a host's namespace. Its methods may be called concurrently.
type Process struct {
	// Constant after Start.
	cmd  *exec.Cmd
	name string
	log  string
	done chan struct{}

	// Written before done is closed, read after.
	err error
}

// Start starts a process in the host's namespace. It runs until it exits, or until Stop, Kill or the lab's Close.
func (h *Host) Start(c ProcessConfig) (*Process, error) {
	return h.start(c, []string{"--net=" + h.Path(), "--"})
}

// start starts a process of the host in the namespaces that enter, arguments of nsenter, leads to. nsenter replaces itself by the
// program, so the PID is that of the program.
func (h *Host) start(c ProcessConfig, enter []string) (*Process, error) {
	if len(c.Argv) == 0 {
		return nil, errors.New("nettest: no program to start")
	}
	if c.Name == "" {
		c.Name = filepath.Base(c.Argv[0])
	}
	p := &Process{name: c.Name, log: filepath.Join(h.dir, c.Name+".log"), done: make(chan struct{})}
	file, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("nettest: %w", err)
	}
	defer func() { _ = file.Close() }()
	p.cmd = exec.Command("nsenter", append(enter, h.pinned(c.Argv)...)...)
	p.cmd.Env = append(os.Environ(), c.Env...)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("nettest: starting %s: %w", c.Name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	h.processes = append(h.processes, p)
	return p, nil
}

// Pid returns the process ID.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Logs returns the output so far of all processes with this name on the host.
func (p *Process) Logs() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Wait waits for the process and returns an error unless it exited with code 0.
func (p *Process) Wait() error {
	<-p.done
	if p.err != nil {
		return fmt.Errorf("nettest: %s: %w", p.name, p.err)
	}
	return nil
}

// Signal sends a signal to the process. It does nothing if the process has ended.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("nettest: signaling %s: %w", p.name, err)
	}
	return nil
}

// dumpTime is how long a process that does not end may take to log what it waits for.
const dumpTime = 2 * time.Second

// Stop sends SIGTERM to the process, kills it after grace, and waits for it. It returns an error if the process was killed
// or did not exit with code 0. Before it is killed, it gets SIGQUIT, at which a Go program logs its goroutines.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.Wait()
	case <-timer.C:
		_ = p.Signal(syscall.SIGQUIT)
		select {
		case <-p.done:
		case <-time.After(dumpTime):
		}
		p.Kill()
		return fmt.Errorf("nettest: %s did not end within %s of SIGTERM", p.name, grace)
	}
}

// Kill sends SIGKILL to the process and waits for it.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// killProcesses kills all processes that Start started on the host.
func (h *Host) killProcesses() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.processes {
		p.Kill()
	}
}
