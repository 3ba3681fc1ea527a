package podlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/internal/netdump"
)

// Resize is a change of the MTUs of one pair.
type Resize struct {
	Port      Port
	Host, Pod int // of the two ends, in bytes; 0: unchanged
	// Err is set by ResizeAll; nil: the ends have the MTUs, or the pair was removed. It wraps ErrHidden where the namespace of
	// the pod would have to be entered and cannot be: the pair is unchanged then.
	Err error
}

// PodMTU returns the MTU in bytes of the pod end. It enters no namespace.
func (p *Port) PodMTU() (int, error) {
	attrs, err := p.podEnd()
	if err != nil {
		return 0, err
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.IFLA_MTU && len(a.Value) >= 4 {
			return int(binary.NativeEndian.Uint32(a.Value)), nil
		}
	}
	return 0, fmt.Errorf("podlink: the kernel does not report the MTU of the other end of %s", p.Name)
}

// Ifname returns the name of the pod end. It enters no namespace.
func (p *Port) Ifname() (string, error) {
	attrs, err := p.podEnd()
	if err != nil {
		return "", err
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.IFLA_IFNAME {
			return unix.ByteSliceToString(a.Value), nil
		}
	}
	return "", fmt.Errorf("podlink: the kernel does not report the name of the other end of %s", p.Name)
}

// podEnd returns the attributes of the pod end.
func (p *Port) podEnd() ([]syscall.NetlinkRouteAttr, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(p.peer)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(p.netns))))
	answers, err := netdump.Repeat(func() ([][]byte, error) { return req.Execute(unix.NETLINK_ROUTE, 0) })
	if err == nil && (len(answers) != 1 || len(answers[0]) < unix.SizeofIfInfomsg) {
		err = errors.New("the kernel does not report it")
	}
	if err != nil {
		return nil, fmt.Errorf("podlink: the other end of %s: %w", p.Name, err)
	}
	attrs, err := nl.ParseRouteAttr(answers[0][unix.SizeofIfInfomsg:])
	if err != nil {
		return nil, fmt.Errorf("podlink: the other end of %s: %w", p.Name, err)
	}
	return attrs, nil
}

// ResizeAll sets the MTUs of pairs, and the Err of each. For pod ends it looks for their namespaces among the files of this host, and
// enters each for one system call.
func ResizeAll(list []Resize) {
	open := map[int][]*Resize{} // by the ID of the namespace, which may have several pairs
	for i := range list {
		r := &list[i]
		if r.Pod == 0 {
			r.Err = r.setHost()
			continue
		}
		r.Err = fmt.Errorf("%w: %s", ErrHidden, r.Port.Name)
		open[r.Port.netns] = append(open[r.Port.netns], r)
	}
	enterSpaces(slices.Collect(maps.Keys(open)), func(fd netns.NsHandle, id int) {
		for _, r := range open[id] {
			r.Err = r.apply(fd)
		}
	})
}

// apply sets the MTUs of both ends: first that of the pod end unless the host end grows, so that the pod never sends what the host
// end drops.
func (r *Resize) apply(fd netns.NsHandle) error {
	pod, err := netlink.NewHandleAt(fd, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("podlink: netlink in the namespace of %s: %w", r.Port.Name, err)
	}
	defer pod.Close()
	setPod := func() error { return r.set(pod.LinkSetMTU, r.Port.peer, r.Pod) }
	if r.Host > r.Port.MTU {
		if err := r.setHost(); err != nil {
			return err
		}
		return setPod()
	}
	if err := setPod(); err != nil {
		return err
	}
	return r.setHost()
}

func (r *Resize) setHost() error { return r.set(netlink.LinkSetMTU, r.Port.index, r.Host) }

// set sets the MTU of one end, unless it is 0. An end that was removed is no error.
func (r *Resize) set(op func(netlink.Link, int) error, index, mtu int) error {
	if mtu == 0 {
		return nil
	}
	end := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: r.Port.Name, Index: index}}
	if err := op(end, mtu); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("podlink: set MTU %d of %s: %w", mtu, r.Port.Name, err)
	}
	return nil
}
