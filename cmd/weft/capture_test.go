package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"weft/internal/capture/pcapng"
	"weft/internal/hint"
)

// captureOf runs "weft capture -w FILE" against a daemon that answers with h, and returns the exit code.
func captureOf(t *testing.T, file string, h http.HandlerFunc) int {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "weft.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	defer func() { _ = s.Close(); <-done }()
	var out bytes.Buffer
	code := run(context.Background(), []string{"capture", "--socket", socket, "-w", file}, &out, &out)
	t.Logf("%d: %s", code, out.String())
	return code
}

// TestCaptureFileIsKept: a capture that the daemon rejects does not truncate the file of the previous capture.
func TestCaptureFileIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.pcapng")
	if err := os.WriteFile(file, []byte("the previous one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := captureOf(t, file, func(w http.ResponseWriter,
		_ *http.Request) {
		w.WriteHeader(http.StatusConflict)
	}); code != hint.ExitFailed {
		t.Errorf("exit code %d", code)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "the previous one" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestCaptureFileRecordsLostFrames: the file contains the number of frames that were left out.
func TestCaptureFileRecordsLostFrames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.pcapng")
	if code := captureOf(t, file, func(w http.ResponseWriter, _ *http.Request) {
		stream, err := pcapng.NewWriter(w, "weft", "")
		if err != nil {
			t.Error(err)
			return
		}
		for range 3 {
			if err := stream.Write(time.Now(), pcapng.Path{Peer: "b"}, 60, make([]byte, 60)); err != nil {
				t.Error(err)
			}
		}
		if err := stream.Lost(7); err != nil {
			t.Error(err)
		}
	}); code != hint.ExitDone {
		t.Errorf("exit code %d", code)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapng.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	frames := 0
	for ; err == nil; frames++ {
		_, err = r.Next()
	}
	if frames--; frames != 3 || r.Lost() != 7 {
		t.Errorf("%d frames, %d lost", frames, r.Lost())
	}
}

// TestCaptureFileIsNew: the file is a new one with mode 0600, in place of an earlier one that others could read; a link is not
// followed.
func TestCaptureFileIsNew(t *testing.T) {
	answer := func(w http.ResponseWriter, _ *http.Request) {
		stream, err := pcapng.NewWriter(w, "weft", "")
		if err == nil {
			err = stream.Lost(0)
		}
		if err != nil {
			t.Error(err)
		}
	}
	file, link := filepath.Join(t.TempDir(), "x.pcapng"), filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.WriteFile(file, []byte("earlier"), 0o600), os.Chmod(file, 0o644), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	if code := captureOf(t, link, answer); code != hint.ExitUsage {
		t.Errorf("a link: exit code %d", code)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "earlier" {
		t.Errorf("the target of the link: %q, %v", text, err)
	}
	if code := captureOf(t, file, answer); code != hint.ExitDone {
		t.Errorf("exit code %d", code)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 || info.Size() < 32 {
		t.Errorf("%v, %v", info, err)
	}
}
