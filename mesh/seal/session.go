package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/flynn/noise"
)

// MessageKind says what a message of a stream is.
type MessageKind byte

// The kinds of messages. The zero MessageKind is invalid.
const (
	Memberlist MessageKind = 1 // a message of memberlist's streams
	Unicast    MessageKind = 2 // a message of a channel to this node
	Status     MessageKind = 3 // one byte: a Refusal, 0 for none
)

// MaxMessage is the length in bytes of the longest message of a stream: memberlist accepts states of that length.
const MaxMessage = 20 << 20

// maxRecord is the length in bytes of the longest record, with its tag.
const maxRecord = noise.MaxMsgLen

const messageHeader = 1 + 4

// Session is an authenticated stream. A message is one record or more, each sealed on its own:
//
//	record:   | length 2 | sealed, at most 65,519 | tag 16 |
//	message:  | kind 1 | length 4 | bytes |             over the plaintexts of its records
//
// Numbers are big endian; a record's length includes its tag. Each direction belongs to one goroutine at a time.
type Session struct{ out, in *noise.CipherState }

// WriteMessage seals a message and writes it to w, each record with one Write.
func (s *Session) WriteMessage(w io.Writer, kind MessageKind, msg []byte) error {
	if len(msg) > MaxMessage {
		return fmt.Errorf("%w: a message of %d bytes", ErrMalformed, len(msg))
	}
	head := binary.BigEndian.AppendUint32([]byte{byte(kind)}, uint32(len(msg)))
	const most = maxRecord - tagLen
	plain := make([]byte, 0, min(len(head)+len(msg), most))
	plain = append(plain, head...)
	record := make([]byte, 0, 2+cap(plain)+tagLen)
	for {
		n := min(most-len(plain), len(msg))
		plain, msg = append(plain, msg[:n]...), msg[n:]
		record = binary.BigEndian.AppendUint16(record[:0], uint16(len(plain)+tagLen))
		record, err := s.out.Encrypt(record, nil, plain)
		if err != nil {
			return fmt.Errorf("seal: sealing a record: %w", err)
		}
		if _, err := w.Write(record); err != nil {
			return err
		}
		if len(msg) == 0 {
			return nil
		}
		plain = plain[:0]
	}
}

// ReadMessage reads and opens one message of at most most bytes. Its buffer grows with the bytes that have arrived, and
// all of it is taken from budget; the caller gives back cap(msg) when it needs msg no more. Errors wrap ErrMalformed,
// ErrKey or ErrBudget, or are those of the reader; io.EOF means that the stream ends before the message.
func (s *Session) ReadMessage(r io.Reader, most int, budget Share) (kind MessageKind, msg []byte, err error) {
	plain, err := s.readRecord(r)
	if err != nil {
		return 0, nil, err
	}
	if len(plain) < messageHeader {
		return 0, nil, fmt.Errorf("%w: a first record of %d bytes", ErrMalformed, len(plain))
	}
	kind = MessageKind(plain[0])
	total := uint64(binary.BigEndian.Uint32(plain[1:]))
	plain = plain[messageHeader:]
	if total > uint64(most) || uint64(len(plain)) > total {
		return 0, nil, fmt.Errorf("%w: a message of %d bytes", ErrMalformed, total)
	}
	if msg, err = budget.grow(nil, len(plain), int(total)); err != nil {
		return 0, nil, err
	}
	for msg = append(msg, plain...); len(msg) < int(total); msg = append(msg, plain...) {
		if plain, err = s.readRecord(r); err == nil && (len(plain) == 0 || len(plain) > int(total)-len(msg)) {
			err = fmt.Errorf("%w: a record of %d bytes", ErrMalformed, len(plain))
		}
		if err != nil {
			budget.Give(cap(msg))
			return 0, nil, err
		}
		if msg, err = budget.grow(msg, len(plain), int(total)); err != nil {
			return 0, nil, err
		}
	}
	return kind, msg, nil
}

// readRecord reads and opens one record.
func (s *Session) readRecord(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(head[:])
	if n < tagLen {
		return nil, fmt.Errorf("%w: a record of %d bytes", ErrMalformed, n)
	}
	record := make([]byte, n)
	if _, err := io.ReadFull(r, record); err != nil {
		return nil, fmt.Errorf("seal: reading a record: %w", noEOF(err))
	}
	plain, err := s.in.Decrypt(record[:0], nil, record)
	if err != nil {
		return nil, fmt.Errorf("%w: a record: %w", ErrKey, err)
	}
	return plain, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
