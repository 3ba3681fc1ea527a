package taptest

import (
	"context"
	"errors"
	"testing"
)

func TestMemory(t *testing.T) {
	TestDevice(t, func(*testing.T) Host {
		d := New(Config{})
		return Host{
			Device: d,
			Send: func(frame []byte) error {
				if !d.Inject(frame) {
					return errors.New("full")
				}
				return nil
			},
			Receive: func(ctx context.Context) ([]byte, error) {
				f, err := d.Next(ctx)
				return f.Data, err
			},
		}
	})
}
