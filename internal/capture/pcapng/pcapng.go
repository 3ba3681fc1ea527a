// Package pcapng writes and reads captures of the overlay in the format of Wireshark (draft-ietf-opsawg-pcapng), and
// describes a frame in a line of text.
//
// Each interface of a file stands for a path of frames: a peer (the name of the interface), a session with it (the comment)
// and a direction (the description). The first interface is for frames that are sent to all peers.
package pcapng

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// Path is a path of frames between this node and a peer.
type Path struct {
	Peer    string // nickname; empty: all peers
	Session string // a phrase about the session or device that carries the frames
	Sent    bool   // true: to the peer; false: from it
}

func (p Path) direction() string {
	if p.Sent {
		return directionSent
	}
	return directionReceived
}

// Descriptions of interfaces.
const (
	directionSent     = "frames to the peer"
	directionReceived = "frames from the peer"
)

// allPeers is the name of the interface for frames that are sent to all peers.
const allPeers = "all"

// Writer writes a capture. It may be used by one goroutine at a time.
// See docs/adr/0028-gopacket.md.
type Writer struct {
	ng    *pcapgo.NgWriter
	paths map[Path]int // IDs of interfaces
}

// NewWriter begins a capture. program and comment are stored in its section header.
func NewWriter(w io.Writer, program, comment string) (*Writer, error) {
	ng, err := pcapgo.NewNgWriterInterface(w, iface(allPeers, "", "frames for all peers"), pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{Application: program, Comment: comment, OS: "linux"},
	})
	if err != nil {
		return nil, fmt.Errorf("pcapng: %w", err)
	}
	return &Writer{ng, map[Path]int{{Sent: true}: 0}}, nil
}

func iface(name, comment, description string) pcapgo.NgInterface {
	return pcapgo.NgInterface{Name: name, Comment: comment, Description: description, LinkType: layers.LinkTypeEthernet}
}

// Write adds a frame that was captured at the given time. length is the length in bytes of the whole frame, data its
// beginning. Write does not keep data.
func (w *Writer) Write(at time.Time, path Path, length int, data []byte) error {
	id, known := w.paths[path]
	if !known {
		name := path.Peer
		if name == "" {
			name = allPeers
		}
		var err error
		if id, err = w.ng.AddInterface(iface(name, path.Session, path.direction())); err != nil {
			return fmt.Errorf("pcapng: %w", err)
		}
		w.paths[path] = id
	}
	info := gopacket.CaptureInfo{Timestamp: at, Length: length, CaptureLength: len(data), InterfaceIndex: id}
	if err := w.ng.WritePacket(info, data); err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	return nil
}

// Lost writes how many frames were not captured so far, and flushes.
func (w *Writer) Lost(n uint64) error {
	now := time.Now()
	err := w.ng.WriteInterfaceStats(0, pcapgo.NgInterfaceStatistics{
		LastUpdate: now, PacketsDropped: n, PacketsReceived: pcapgo.NgNoValue64,
	})
	if err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	return w.Flush()
}

// Flush writes all buffered frames to the underlying writer.
func (w *Writer) Flush() error {
	if err := w.ng.Flush(); err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	return nil
}

// Reader reads the output of a Writer. It must not be used for files from untrusted sources: they can make the reader of
// gopacket, on which it is based, panic or allocate gigabytes. It may be used by one goroutine at a time. Lost is valid after
// the last Next.
type Reader struct {
	ng *pcapgo.NgReader
}

// NewReader reads the section header of a capture, and blocks until it is there.
func NewReader(r io.Reader) (*Reader, error) {
	ng, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		return nil, fmt.Errorf("pcapng: %w", err)
	}
	return &Reader{ng}, nil
}

// Comment returns the comment in the section header.
func (r *Reader) Comment() string { return r.ng.SectionInfo().Comment }

// Frame is one frame of a capture.
type Frame struct {
	At     time.Time
	Path   Path
	Length int    // of the whole frame in bytes
	Data   []byte // its beginning
}

// Next returns the next frame. The error is io.EOF after the last one, and io.ErrUnexpectedEOF when the capture was cut off.
func (r *Reader) Next() (Frame, error) {
	data, info, err := r.ng.ReadPacketData()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Frame{}, err
	case err != nil:
		return Frame{}, fmt.Errorf("pcapng: %w", err)
	}
	f := Frame{At: info.Timestamp, Length: info.Length, Data: data}
	i, err := r.ng.Interface(info.InterfaceIndex)
	if err != nil {
		return Frame{}, fmt.Errorf("pcapng: %w", err)
	}
	f.Path = Path{Peer: i.Name, Session: i.Comment, Sent: i.Description != directionReceived}
	if info.InterfaceIndex == 0 {
		f.Path.Peer = ""
	}
	return f, nil
}

// Lost returns how many frames were not captured, 0 when the capture does not contain that.
func (r *Reader) Lost() uint64 {
	i, err := r.ng.Interface(0)
	if err != nil || i.Statistics.PacketsDropped == pcapgo.NgNoValue64 {
		return 0
	}
	return i.Statistics.PacketsDropped
}
