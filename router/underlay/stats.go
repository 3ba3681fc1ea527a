package underlay

import "sync/atomic"

// Stats are the counters of a socket since it was opened.
type Stats struct {
	// SendMessages counts the messages sent to the kernel, SendDatagrams the datagrams in them.
	SendMessages, SendDatagrams uint64
	// ReceiveMessages counts the messages received from the kernel, ReceiveDatagrams the datagrams in them.
	ReceiveMessages, ReceiveDatagrams uint64
	// Truncated counts the messages that were dropped because they were longer than their buffers.
	Truncated uint64
	// Unsegmented counts the messages that the kernel refused to segment, so that their datagrams were sent one by one.
	Unsegmented uint64
	// GSODisabled is 1 if the socket has disabled GSO because the kernel or a device does not support it.
	GSODisabled uint64
	// Reports counts the errors that the network reported about sent datagrams.
	Reports ReportStats
}

// ReportStats counts Reports by their Err.
type ReportStats struct {
	Refused     uint64 // ECONNREFUSED: no socket at the destination
	Unreachable uint64 // EHOSTUNREACH, ENETUNREACH and similar errors
	TooLong     uint64 // EMSGSIZE: larger than the MTU of a link on the path
	Other       uint64
}

// add adds the counters of another socket; GSODisabled is then the number of sockets that disabled GSO.
func (s *Stats) add(other Stats) {
	s.SendMessages += other.SendMessages
	s.SendDatagrams += other.SendDatagrams
	s.ReceiveMessages += other.ReceiveMessages
	s.ReceiveDatagrams += other.ReceiveDatagrams
	s.Truncated += other.Truncated
	s.Unsegmented += other.Unsegmented
	s.GSODisabled += other.GSODisabled
	s.Reports.Refused += other.Reports.Refused
	s.Reports.Unreachable += other.Reports.Unreachable
	s.Reports.TooLong += other.Reports.TooLong
	s.Reports.Other += other.Reports.Other
}

// counters are the atomic counters of Stats. Each system call adds to them once.
type counters struct {
	sendMessages, sendDatagrams          atomic.Uint64
	receiveMessages, receiveDatagrams    atomic.Uint64
	truncated, unsegmented, gsoDisabled  atomic.Uint64
	refused, unreachable, tooLong, other atomic.Uint64
}

func (c *counters) load() Stats {
	return Stats{
		SendMessages:     c.sendMessages.Load(),
		SendDatagrams:    c.sendDatagrams.Load(),
		ReceiveMessages:  c.receiveMessages.Load(),
		ReceiveDatagrams: c.receiveDatagrams.Load(),
		Truncated:        c.truncated.Load(),
		Unsegmented:      c.unsegmented.Load(),
		GSODisabled:      c.gsoDisabled.Load(),
		Reports: ReportStats{
			Refused:     c.refused.Load(),
			Unreachable: c.unreachable.Load(),
			TooLong:     c.tooLong.Load(),
			Other:       c.other.Load(),
		},
	}
}
