package node

import (
	"context"
	"crypto/sha256"
	"os"
	"time"
)

// Times of the watch of the secret file. A file that cannot be reloaded is tried again after secretRetry.
const (
	secretPeriod = 2 * time.Second
	secretRetry  = 30 * time.Second
)

// watchSecretFile reloads when the content of the secret file has changed, until ctx ends. It does nothing without
// --watch-secret. A missing file changes nothing.
func (r *reloader) watchSecretFile(ctx context.Context) {
	r.mu.Lock()
	path, watch := r.given.SecretFile, r.given.WatchSecret
	r.mu.Unlock()
	if !watch || path == "" {
		return
	}
	tick := time.NewTicker(secretPeriod)
	defer tick.Stop()
	var failed [sha256.Size]byte
	var retry time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			sum, ok := digestOf(path)
			if !ok || sum == r.known || sum == failed && now.Before(retry) {
				continue
			}
			if _, err := r.Reload(); err != nil { // which logs it
				failed, retry = sum, now.Add(secretRetry)
				continue
			}
			r.known = sum
		}
	}
}

// digestOf returns the digest of a file; ok is false if the file cannot be read.
func digestOf(path string) (sum [sha256.Size]byte, ok bool) {
	text, err := os.ReadFile(path)
	return sha256.Sum256(text), err == nil
}
