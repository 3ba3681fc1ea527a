package epoch

import (
	"encoding/binary"
	"fmt"

	"weft/internal/identity"
	"weft/internal/peer"
)

// A message is a sequence of records:
//
//	| type 1 | length 2 | value |
//
// Broadcasts and states have lists and announcements only, so that the keys of epochs are only in messages to one node.
type recordType uint8

const (
	recordList     recordType = 1 // a list of revoked nodes, as identity.Revocations.Encode returns it
	recordAnnounce recordType = 2 // see announcement
	recordRequest  recordType = 3 // no value: send lists and epoch to the sender
	recordEpoch    recordType = 4 // see Epoch.encode
)

// announcement is that a node has an epoch.
//
//	 0        8      16       24
//	+--------+------+--------+---+------------------------+
//	| holder | name | number | k | lists: CA 4, version 8 |
//	+--------+------+--------+---+------------------------+
type announcement struct {
	holder peer.ID
	name   Name
	number uint64
	lists  []List
}

const announceFixed = 8 + 8 + 8

func (a announcement) encode() []byte {
	b := append(a.holder[:], a.name[:]...)
	return appendLists(binary.BigEndian.AppendUint64(b, a.number), a.lists)
}

func parseAnnouncement(b []byte) (announcement, error) {
	if len(b) < announceFixed {
		return announcement{}, fmt.Errorf("%w: an announcement of %d bytes", ErrMalformed, len(b))
	}
	lists, err := parseLists(b[announceFixed:])
	return announcement{peer.ID(b), Name(b[8:]), binary.BigEndian.Uint64(b[16:]), lists}, err
}

// message is a parsed message. Records of unknown types are left out.
type message struct {
	lists    []identity.Revocations // signatures not checked
	announce *announcement
	request  bool
	epoch    *Epoch
}

func parseMessage(b []byte) (message, error) {
	var m message
	for len(b) > 0 {
		if len(b) < 3 || len(b)-3 < int(binary.BigEndian.Uint16(b[1:])) {
			return message{}, fmt.Errorf("%w: a record that is cut short", ErrMalformed)
		}
		length := int(binary.BigEndian.Uint16(b[1:]))
		if err := m.add(recordType(b[0]), b[3:3+length]); err != nil {
			return message{}, err
		}
		b = b[3+length:]
	}
	return m, nil
}

func (m *message) add(t recordType, value []byte) error {
	switch t {
	case recordList:
		list, err := identity.ParseRevocations(value)
		if err != nil {
			return err
		}
		if len(m.lists) == identity.MaxCAs { // each costs a check of its signature for each CA
			return fmt.Errorf("%w: more than %d lists", ErrMalformed, identity.MaxCAs)
		}
		m.lists = append(m.lists, list)
	case recordAnnounce:
		a, err := parseAnnouncement(value)
		if err != nil {
			return err
		}
		m.announce = &a
	case recordRequest:
		m.request = true
	case recordEpoch:
		e, err := parseEpoch(value)
		if err != nil {
			return err
		}
		m.epoch = &e
	default: // of a later version
	}
	return nil
}

func appendRecord(b []byte, t recordType, value []byte) []byte {
	b = append(b, byte(t))
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// appendTrusted appends a record for each list.
func appendTrusted(b []byte, t identity.Trust) []byte {
	for _, ca := range t.CAs() {
		if list := t.List(ca); !list.IsZero() {
			b = appendRecord(b, recordList, list.Encode())
		}
	}
	return b
}
