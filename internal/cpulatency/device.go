package cpulatency

import (
	"encoding/binary"
	"fmt"
	"os"
)

// deviceRequest is a request by the kernel's device. The kernel ends it when the device is closed.
type deviceRequest struct{ file *os.File }

func openDevice() (*deviceRequest, error) {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("cpulatency: %w", err)
	}
	return &deviceRequest{f}, nil
}

func (r *deviceRequest) set(microseconds int32) error {
	if _, err := r.file.Write(binary.NativeEndian.AppendUint32(nil, uint32(microseconds))); err != nil {
		return fmt.Errorf("cpulatency: %w", err)
	}
	return nil
}

// effective returns the lowest latency that any process of the host requests, in microseconds.
func (r *deviceRequest) effective() (microseconds int32, err error) {
	var b [4]byte
	if _, err := r.file.ReadAt(b[:], 0); err != nil {
		return 0, fmt.Errorf("cpulatency: %w", err)
	}
	return int32(binary.NativeEndian.Uint32(b[:])), nil
}

func (r *deviceRequest) close() error { return r.file.Close() }
