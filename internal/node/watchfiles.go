package node

import (
	"context"
	"crypto/sha256"
	"os"
	"time"
)

// Times of the watch of the files of credentials. Files that cannot be reloaded are tried again after watchRetry.
const (
	watchPeriod = 2 * time.Second
	watchRetry  = 30 * time.Second
)

// watchFiles reloads when the content of the secret file or of a file of the identity has changed, until ctx ends. It does nothing
// without --watch-secret. While one of the files is missing, nothing changes.
func (r *reloader) watchFiles(ctx context.Context) {
	r.mu.Lock()
	paths, watch := r.given.WatchedFiles(), r.given.WatchSecret
	r.mu.Unlock()
	if !watch || len(paths) == 0 {
		return
	}
	tick := time.NewTicker(watchPeriod)
	defer tick.Stop()
	var failed [sha256.Size]byte
	var retry time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			sum, ok := digestOf(paths)
			if !ok || sum == r.known || sum == failed && now.Before(retry) {
				continue
			}
			if _, err := r.Reload(); err != nil { // which logs it
				failed, retry = sum, now.Add(watchRetry)
				continue
			}
			r.known = sum
		}
	}
}

// digestOf returns a digest of files; ok is false if one cannot be read.
func digestOf(paths []string) (sum [sha256.Size]byte, ok bool) {
	h := sha256.New()
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return sum, false
		}
		of := sha256.Sum256(text)
		h.Write(of[:]) // digests have one length: no content moves from one file to the next
	}
	return [sha256.Size]byte(h.Sum(nil)), true
}
