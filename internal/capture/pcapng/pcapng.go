// Package pcapng writes and reads captures of the overlay in the format of Wireshark (draft-ietf-opsawg-pcapng), and tells frames in a
// line each.
//
// An interface of the file stands for a way that frames take: a peer (its name), a session with it (its comment) and a direction (its
// description). The first is that of frames for all peers.
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

// Way is how frames go.
type Way struct {
	Peer    string // its nickname; empty: all peers
	Session string // a phrase on what carries them
	Sent    bool   // to the peer, else from it
}

func (w Way) direction() string {
	if w.Sent {
		return directionSent
	}
	return directionReceived
}

// Descriptions of interfaces.
const (
	directionSent     = "frames to the peer"
	directionReceived = "frames from the peer"
)

// everybody is the name of the interface of frames for all peers.
const everybody = "all"

// Writer writes a capture. It is for one goroutine.
type Writer struct {
	ng   *pcapgo.NgWriter
	ways map[Way]int
}

// NewWriter begins a capture: program and comment stand in its head.
func NewWriter(w io.Writer, program, comment string) (*Writer, error) {
	ng, err := pcapgo.NewNgWriterInterface(w, iface(everybody, "", "frames for all peers"), pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{Application: program, Comment: comment, OS: "linux"},
	})
	if err != nil {
		return nil, fmt.Errorf("pcapng: %w", err)
	}
	return &Writer{ng, map[Way]int{{Sent: true}: 0}}, nil
}

func iface(name, comment, description string) pcapgo.NgInterface {
	return pcapgo.NgInterface{Name: name, Comment: comment, Description: description, LinkType: layers.LinkTypeEthernet}
}

// Write adds a frame of the given length, of which data is the beginning.
func (w *Writer) Write(at time.Time, way Way, length int, data []byte) error {
	id, known := w.ways[way]
	if !known {
		name := way.Peer
		if name == "" {
			name = everybody
		}
		var err error
		if id, err = w.ng.AddInterface(iface(name, way.Session, way.direction())); err != nil {
			return fmt.Errorf("pcapng: %w", err)
		}
		w.ways[way] = id
	}
	info := gopacket.CaptureInfo{Timestamp: at, Length: length, CaptureLength: len(data), InterfaceIndex: id}
	if err := w.ng.WritePacket(info, data); err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	return nil
}

// Lost notes how many frames were not captured so far.
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

// Flush hands over what was written.
func (w *Writer) Flush() error {
	if err := w.ng.Flush(); err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	return nil
}

// Reader reads what a Writer wrote, and nothing else: gopacket's reader, below, panics or takes gigabytes where a file of a stranger's wants it
// to. It is for one goroutine, but for Lost, which is called after the last Next.
type Reader struct {
	ng *pcapgo.NgReader
}

// NewReader reads the head of a capture; it waits for it.
func NewReader(r io.Reader) (*Reader, error) {
	ng, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		return nil, fmt.Errorf("pcapng: %w", err)
	}
	return &Reader{ng}, nil
}

// Comment returns what stands in the head.
func (r *Reader) Comment() string { return r.ng.SectionInfo().Comment }

// Frame is one frame of a capture.
type Frame struct {
	At     time.Time
	Way    Way
	Length int // of the whole
	Data   []byte
}

// Next returns the next frame; the error is io.EOF behind the last one, and io.ErrUnexpectedEOF where the capture was cut off.
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
	f.Way = Way{Peer: i.Name, Session: i.Comment, Sent: i.Description != directionReceived}
	if info.InterfaceIndex == 0 {
		f.Way.Peer = ""
	}
	return f, nil
}

// Lost returns how many frames were not captured, as far as the capture says.
func (r *Reader) Lost() uint64 {
	i, err := r.ng.Interface(0)
	if err != nil || i.Statistics.PacketsDropped == pcapgo.NgNoValue64 {
		return 0
	}
	return i.Statistics.PacketsDropped
}
