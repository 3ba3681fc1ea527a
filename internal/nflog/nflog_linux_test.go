package nflog_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/netlink"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/nflog"
)

// TestReceive: packets arrive with the prefix of the rule, at once, and Close ends a Receive.
func TestReceive(t *testing.T) {
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "a")
	labtest.Run(t, h.Space, "nft", "add table inet x; add chain inet x out { type filter hook output priority 0; };"+
		`add rule inet x out udp dport 9 log prefix "found" group 77 snaplen 64`)
	var conn *nflog.Conn
	if err := h.Do(func() (err error) {
		conn, err = nflog.Open(nflog.Config{Group: 77, Length: 64, AtOnce: true})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := h.Do(func() error { _, err := nflog.Open(nflog.Config{Group: 77}); return err }); err == nil {
		t.Error("a group was bound twice")
	}
	for i := range 3 {
		if err := h.Do(func() error {
			c, err := net.Dial("udp", "127.0.0.1:9")
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = fmt.Fprintf(c, "packet %d", i)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		packets, err := conn.Receive()
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("packet %d", i)
		if len(packets) != 1 || packets[0].Prefix != "found" || string(packets[0].Data[28:]) != want {
			t.Errorf("received %q, want %q", packets, want)
		}
	}
	if err := conn.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := conn.Receive()
		ended <- err
	}()
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// FuzzParse decodes messages that contain packets of pods.
func FuzzParse(f *testing.F) {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: 10, Data: []byte("egress\x00")}, {Type: 9, Data: []byte{0x45}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append([]byte{0, 0, 0, 1}, attrs...))
	f.Fuzz(func(_ *testing.T, data []byte) {
		nflog.Parse(netlink.Message{Header: netlink.Header{Type: 4 << 8}, Data: data})
	})
}
