// Package nflog reads packets from a log group of netfilter (nfnetlink_log), to which rules of nftables send them with "log group".
package nflog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Messages and attributes of nfnetlink_log (linux/netfilter/nfnetlink_log.h).
const (
	messagePacket   = netlink.HeaderType(unix.NFNL_SUBSYS_ULOG << 8)
	messageConfig   = netlink.HeaderType(unix.NFNL_SUBSYS_ULOG<<8 | 1)
	attrPayload     = 9  // NFULA_PAYLOAD
	attrPrefix      = 10 // NFULA_PREFIX
	configCommand   = 1  // NFULA_CFG_CMD
	configMode      = 2  // NFULA_CFG_MODE
	configThreshold = 5  // NFULA_CFG_QTHRESH
	commandBind     = 1  // NFULNL_CFG_CMD_BIND
	copyPacket      = 2  // NFULNL_COPY_PACKET
)

// headerLen is the length of struct nfgenmsg, the header of netfilter messages: address family, version, resource.
const headerLen = 4

// Packet is a packet of a log group.
type Packet struct {
	Prefix string // of the rule
	Data   []byte // from the IP header on, as far as it was copied
}

// Conn is a log group. One goroutine may call Receive; Close may be called from any.
type Conn struct {
	conn   *netlink.Conn
	closed atomic.Bool
}

// Config describes a log group to Open.
type Config struct {
	// Group is its number. One socket of a network namespace can have it.
	Group uint16
	// Length is how many bytes of each packet are copied.
	Length uint32
	// Buffer is the size of the buffer for packets that wait to be received, in bytes; 0: the default of the kernel.
	Buffer int
	// AtOnce has the kernel send each packet at once. Otherwise it may wait for others, for a second.
	AtOnce bool
	// NetNS is a descriptor of the network namespace; 0: that of the calling thread.
	NetNS int
}

// Open binds a log group.
func Open(cfg Config) (*Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: cfg.NetNS})
	if err != nil {
		return nil, fmt.Errorf("nflog: netlink: %w", err)
	}
	if cfg.Buffer > 0 {
		if err := setBuffer(conn, cfg.Buffer); err != nil {
			return nil, errors.Join(fmt.Errorf("nflog: receive buffer: %w", err), conn.Close())
		}
	}
	attributes := []netlink.Attribute{
		{Type: configCommand, Data: []byte{commandBind}},
		{Type: configMode, Data: append(binary.BigEndian.AppendUint32(nil, cfg.Length), copyPacket, 0)},
	}
	if cfg.AtOnce {
		attributes = append(attributes, netlink.Attribute{Type: configThreshold, Data: binary.BigEndian.AppendUint32(nil, 1)})
	}
	for _, a := range attributes { // the kernel takes one for each message
		data, err := netlink.MarshalAttributes([]netlink.Attribute{a})
		if err == nil {
			_, err = conn.Execute(netlink.Message{
				Header: netlink.Header{Type: messageConfig, Flags: netlink.Request | netlink.Acknowledge},
				Data:   append(header(cfg.Group), data...),
			})
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("nflog: bind log group %d: %w", cfg.Group, err), conn.Close())
		}
	}
	return &Conn{conn: conn}, nil
}

// setBuffer sets the size of the receive buffer: beyond the limit of the host if the process may.
func setBuffer(conn *netlink.Conn, size int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var forced error
	if err := raw.Control(func(fd uintptr) { forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) }); err != nil {
		return err
	}
	if forced == nil {
		return nil
	}
	return conn.SetReadBuffer(size)
}

// header returns struct nfgenmsg.
func header(resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, 0}, resource)
}

// SetReadDeadline limits how long Receive waits; the zero time removes the limit.
func (c *Conn) SetReadDeadline(at time.Time) error { return c.conn.SetReadDeadline(at) }

// Receive waits for packets. There may be none, as those that the kernel had to drop are not reported. The error wraps
// os.ErrDeadlineExceeded after the deadline, and net.ErrClosed after Close.
func (c *Conn) Receive() (packets []Packet, err error) {
	messages, err := c.conn.Receive()
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return nil, nil
	case err != nil && c.closed.Load():
		return nil, net.ErrClosed
	case err != nil:
		return nil, fmt.Errorf("nflog: read log group: %w", err)
	}
	for _, m := range messages {
		if p, ok := Parse(m); ok {
			packets = append(packets, p)
		}
	}
	return packets, nil
}

// Parse decodes a message of a log group; not ok if it has no packet.
func Parse(m netlink.Message) (p Packet, ok bool) {
	if m.Header.Type != messagePacket || len(m.Data) < headerLen {
		return p, false
	}
	attributes, err := netlink.NewAttributeDecoder(m.Data[headerLen:])
	if err != nil {
		return p, false
	}
	for attributes.Next() {
		switch attributes.Type() {
		case attrPrefix:
			p.Prefix = attributes.String()
		case attrPayload:
			p.Data, ok = attributes.Bytes(), true
		}
	}
	return p, ok && attributes.Err() == nil
}

// Close ends Receive.
func (c *Conn) Close() error {
	c.closed.Store(true)
	return c.conn.Close()
}
