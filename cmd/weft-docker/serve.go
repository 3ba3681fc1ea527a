package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"weft/internal/api"
	"weft/internal/docker"
	"weft/internal/dockerapi"
	"weft/internal/hint"
	"weft/internal/leases/deletions"
	"weft/internal/unixsocket"
	"weft/internal/usage"
)

// serveOptions are the flags of "weft-docker serve".
type serveOptions struct {
	socket       string
	pluginDir    string
	dockerSocket string
	stateDir     string
	driver       string
	hostRun      string
	logLevel     string
}

// Limits of the server of the plugin's socket.
const (
	headerTimeout = 10 * time.Second
	drainTimeout  = 5 * time.Second
)

func newServeCommand() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the network driver and the IPAM driver for Docker",
		Long: "Serve the network driver and the IPAM driver for Docker, until SIGTERM. Docker finds the plugin by its socket in\n" +
			"--plugin-dir, and starts before or after it. Containers keep running while the plugin is away; networks and\n" +
			"containers cannot be created and started meanwhile.\n\n" +
			"The plugin also follows Docker's own API: it gives containers their names under the DNS domain of the node,\n" +
			"ends what is left after a crash of Docker, and starts containers that could not start while weft was away.",
		Example: "  weft-docker serve\n  docker network create -d weft --ipam-driver weft mynet",
		Args:    usage.Arguments(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	socket := os.Getenv(api.SocketEnv)
	if socket == "" {
		socket = api.DefaultSocket
	}
	f := cmd.Flags()
	f.StringVar(&o.socket, "socket", socket, "the daemon's API socket")
	f.StringVar(&o.pluginDir, "plugin-dir", "/run/docker/plugins", "folder in which Docker looks for the sockets of plugins")
	f.StringVar(&o.dockerSocket, "docker-socket", dockerapi.DefaultSocket, "socket of Docker's API; empty: container names are not published")
	f.StringVar(&o.stateDir, "state-dir", "/var/lib/weft", "folder for docker.json, which has the networks of this host")
	f.StringVar(&o.driver, "driver", docker.DriverName, "name of the drivers in Docker")
	f.StringVar(&o.hostRun, "host-run", "/run", "folder where the plugin sees /run of the host")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// run serves until ctx ends.
func (o *serveOptions) run(ctx context.Context) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return hint.Refuse("--log-level", "Choose debug, info, warn or error.", "%q is unknown", o.logLevel)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	plugin, err := o.plugin(log)
	if err != nil {
		return err
	}
	l, err := o.listen(ctx)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           plugin.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		stopped <- server.Shutdown(drain)
	}()
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		plugin.Run(ctx)
	}()
	log.Info("weft-docker serves Docker", "socket", l.Addr().String(), "driver", o.driver)
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Debug("cannot notify the service manager", "err", err)
	}
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	}
	<-followed
	return <-stopped
}

// plugin returns the plugin that the flags describe.
func (o *serveOptions) plugin(log *slog.Logger) (*docker.Plugin, error) {
	cfg := docker.Config{
		Driver: o.driver, StateFile: filepath.Join(o.stateDir, "docker.json"),
		Daemon: api.NewClient(o.socket).WithPatience(docker.Patience), Deletions: deletions.Open(o.socket),
		Links: docker.Kernel{HostRun: o.hostRun}, Logger: log,
	}
	if o.dockerSocket != "" {
		cfg.Engine = dockerapi.NewClient(o.dockerSocket).WithPidFile(filepath.Join(o.hostRun, "docker.pid"))
	}
	plugin, err := docker.New(cfg)
	if err != nil {
		return nil, hint.Refuse("--state-dir", "Name a folder that can be written, or restore docker.json from a backup.", "%w", err)
	}
	return plugin, nil
}

// listen binds the plugin's socket, in place of one that a crash has left.
func (o *serveOptions) listen(ctx context.Context) (l net.Listener, err error) {
	if err := os.MkdirAll(o.pluginDir, 0o755); err != nil { //nolint:gosec // as Docker makes it
		return nil, hint.Refuse("--plugin-dir", "Name a folder that can be created.", "%w", err)
	}
	path := filepath.Join(o.pluginDir, o.driver+".sock")
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, hint.Refuse("--plugin-dir", "Name a folder that can be read.", "%w", err)
	case info.Mode()&fs.ModeSocket == 0:
		return nil, hint.Refuse("--plugin-dir", "Remove it, or name another folder.", "%s exists, and is not a socket", path)
	case answers(ctx, path):
		return nil, hint.Refuse("--plugin-dir", "Stop that one first (systemctl stop weft-docker), or choose another --driver.",
			"another plugin serves %s", path)
	}
	if l, err = unixsocket.Listen(ctx, path); err != nil {
		return nil, hint.Refuse("--plugin-dir", "Name a folder where a socket can be created.", "%w", err)
	}
	return l, nil
}

// answers reports whether a program listens at a socket.
func answers(ctx context.Context, path string) bool {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
