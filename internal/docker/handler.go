package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"weft/internal/hint"
)

// Limits of a request.
const (
	maxRequest     = 1 << 20 // bytes
	requestTimeout = time.Minute
)

// contentType is that of all answers of plugins.
const contentType = "application/vnd.docker.plugins.v1.2+json"

// Handler returns the handler of the plugin's socket.
func (p *Plugin) Handler() http.Handler {
	mux := http.NewServeMux()
	serve(p, mux, "Plugin.Activate", func(context.Context, none) (implements, error) {
		return implements{Implements: []string{"NetworkDriver", "IpamDriver"}}, nil
	})
	serve(p, mux, "NetworkDriver.GetCapabilities", func(context.Context, none) (networkCapabilities, error) {
		return networkCapabilities{Scope: "local", ConnectivityScope: "global"}, nil
	})
	serve(p, mux, "NetworkDriver.AllocateNetwork", ignore)
	serve(p, mux, "NetworkDriver.FreeNetwork", ignore)
	serve(p, mux, "NetworkDriver.CreateNetwork", p.createNetwork)
	serve(p, mux, "NetworkDriver.DeleteNetwork", p.deleteNetwork)
	serve(p, mux, "NetworkDriver.CreateEndpoint", p.createEndpoint)
	serve(p, mux, "NetworkDriver.DeleteEndpoint", p.deleteEndpoint)
	serve(p, mux, "NetworkDriver.EndpointOperInfo", func(context.Context, none) (operInfoResponse, error) {
		return operInfoResponse{Value: map[string]string{}}, nil
	})
	serve(p, mux, "NetworkDriver.Join", p.join)
	serve(p, mux, "NetworkDriver.Leave", p.leave)
	serve(p, mux, "NetworkDriver.DiscoverNew", ignore)
	serve(p, mux, "NetworkDriver.DiscoverDelete", ignore)
	serve(p, mux, "NetworkDriver.ProgramExternalConnectivity", ignore)
	serve(p, mux, "NetworkDriver.RevokeExternalConnectivity", ignore)

	serve(p, mux, "IpamDriver.GetCapabilities", func(context.Context, none) (ipamCapabilities, error) {
		return ipamCapabilities{RequiresMACAddress: true}, nil
	})
	serve(p, mux, "IpamDriver.GetDefaultAddressSpaces", func(context.Context, none) (addressSpaces, error) {
		return addressSpaces{LocalDefaultAddressSpace: addressSpace, GlobalDefaultAddressSpace: addressSpace}, nil
	})
	serve(p, mux, "IpamDriver.RequestPool", p.requestPool)
	serve(p, mux, "IpamDriver.ReleasePool", p.releasePool)
	serve(p, mux, "IpamDriver.RequestAddress", p.requestAddress)
	serve(p, mux, "IpamDriver.ReleaseAddress", p.releaseAddress)
	return mux
}

// ignore answers requests that need nothing done.
func ignore(context.Context, none) (none, error) { return none{}, nil }

// serve adds a handler for the requests of one name. Docker shows the text of an error to the user, in one line.
func serve[In, Out any](p *Plugin, mux *http.ServeMux, name string, f func(context.Context, In) (Out, error)) {
	mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		var in In
		var out Out
		err := decode(w, r, &in)
		if err == nil {
			out, err = safely(ctx, p, name, in, f)
		}
		if err != nil {
			p.log.Warn("refused a request of Docker", "request", name, "err", err)
			answer(w, http.StatusInternalServerError, struct{ Err string }{explain(err)})
			return
		}
		p.log.Debug("answered a request of Docker", "request", name)
		answer(w, http.StatusOK, out)
	})
}

// safely calls f. A fault of one request must not end the plugin, and with it all networks of the host.
func safely[In, Out any](
	ctx context.Context,
	p *Plugin,
	name string,
	in In,
	f func(context.Context, In) (Out, error),
) (out Out, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			p.log.Error("a fault in the plugin", "request", name, "fault", fault, "stack", string(debug.Stack()))
			err = fmt.Errorf("a fault in the plugin: %v", fault)
		}
	}()
	return f(ctx, in)
}

// decode reads a request. Docker sends null or nothing where a request has no content.
func decode(w http.ResponseWriter, r *http.Request, in any) error {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(in)
	if _, empty := in.(*none); empty {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the request is not JSON of the expected form: %w", err)
	}
	return nil
}

func answer(w http.ResponseWriter, status int, doc any) {
	text, err := json.Marshal(doc)
	if err != nil { // all documents are plain values
		status, text = http.StatusInternalServerError, []byte(`{"Err":"weft: the answer cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // Docker asks again, or reports that there was no answer
}

// explain returns an error as the one line that Docker shows: "weft:", what is wrong, and how to fix it.
func explain(err error) string {
	text := hint.Plain(err.Error())
	if e, ok := errors.AsType[*hint.Error](err); ok && e.Hint != "" {
		text = strings.TrimSuffix(text, ".") + ". " + e.Hint
	}
	return failurePrefix + strings.Join(strings.Fields(text), " ")
}

// failurePrefix begins all errors of the plugin.
const failurePrefix = "weft: "
