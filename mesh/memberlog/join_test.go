package memberlog

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/hashicorp/memberlist"
)

// TestJoinError: the reason of a join is left alone of what memberlist returns, and has no list around it.
func TestJoinError(t *testing.T) {
	config := memberlist.DefaultLocalConfig()
	config.Logger, config.BindAddr, config.BindPort = New(slog.New(slog.DiscardHandler)), "127.0.0.1", 0
	list, err := memberlist.Create(config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = list.Shutdown() }()
	addr := netip.MustParseAddrPort("127.0.0.1:1") // where nothing listens
	_, err = list.Join([]string{"a/" + addr.String()})
	if err == nil {
		t.Fatal("joined an address where nothing listens")
	}
	const want = "dial tcp 127.0.0.1:1: connect: connection refused"
	if got := JoinError(err, addr); got == nil || got.Error() != want {
		t.Errorf("%v, want %s", got, want)
	}
	plain := errors.New("dial: refused")
	if JoinError(plain, addr) != plain || JoinError(nil, addr) != nil { //nolint:errorlint // the same value
		t.Error("another error is changed")
	}
}
