package underlay

import "sync/atomic"

// Stats is what a socket has counted since it was opened.
type Stats struct {
	// SendMessages is how many messages the kernel took, and SendDatagrams how many datagrams they held.
	SendMessages, SendDatagrams uint64
	// ReceiveMessages is how many messages the kernel gave, and ReceiveDatagrams how many datagrams they held.
	ReceiveMessages, ReceiveDatagrams uint64
	// Truncated is how many messages did not fit their buffers and were dropped.
	Truncated uint64
	// Unsegmented is how many messages the kernel refused to segment, so that their datagrams were sent one by one.
	Unsegmented uint64
	// GSODisabled is 1 once the socket has given up GSO because the kernel, or a device, does not do it.
	GSODisabled uint64
	// Reports is how many errors the network has reported about datagrams sent.
	Reports ReportStats
}

// ReportStats counts Reports by what their Err says.
type ReportStats struct {
	Refused     uint64 // ECONNREFUSED: no socket has the port
	Unreachable uint64 // EHOSTUNREACH, ENETUNREACH and their like
	TooLong     uint64 // EMSGSIZE: larger than a link on the path takes
	Other       uint64
}

// add adds what another socket has counted: GSODisabled then says how many sockets have given up GSO.
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

// counters is Stats while it is counted. Each system call adds once.
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
