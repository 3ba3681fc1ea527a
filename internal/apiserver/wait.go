package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"weft/internal/api"
	"weft/internal/hint"
)

// waitPoll is how often a wait checks its condition.
const waitPoll = 20 * time.Millisecond

// maxWait bounds how long one request may wait.
const maxWait = 24 * time.Hour

// wait blocks until the condition of the query holds, or its timeout is over. It changes nothing.
func (s *Server) wait(r *http.Request, _ none) (api.WaitResult, error) {
	timeout, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || timeout > maxWait {
		return api.WaitResult{}, hint.New(hint.Invalid, "Write a duration such as 30s, of at most 24h.", "the timeout is not valid")
	}
	missing, err := s.condition(r.URL.Query().Get("for"))
	if err != nil {
		return api.WaitResult{}, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), max(timeout, time.Millisecond))
	defer cancel()
	tick := time.NewTicker(waitPoll)
	defer tick.Stop()
	for {
		what := missing()
		if what == "" {
			return api.WaitResult{Done: true}, nil
		}
		select {
		case <-ctx.Done():
			return api.WaitResult{Missing: what}, nil
		case <-tick.C:
		}
	}
}

// condition returns a function that says what the given condition lacks; an empty string once it holds.
func (s *Server) condition(what string) (func() string, error) {
	switch {
	case what == "ready":
		return s.cfg.Health.Missing, nil
	case what == "ipam":
		return s.cfg.Health.MissingAddresses, nil
	case strings.HasPrefix(what, "peers="):
		n, err := strconv.Atoi(strings.TrimPrefix(what, "peers="))
		if err != nil || n < 1 {
			return nil, hint.New(hint.Invalid, "Write a number of nodes, such as peers=3.", "%q is not a number of peers", what)
		}
		return func() string {
			if alive := s.cfg.Cluster.Alive(); alive < n {
				return fmt.Sprintf("%d of %d nodes are alive", alive, n)
			}
			return ""
		}, nil
	}
	return nil, hint.New(hint.Invalid, "Wait for ready, ipam or peers=N.", "%q is not a condition", what)
}
