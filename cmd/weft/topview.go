package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"weft/internal/api"
	"weft/internal/plural"
	"weft/internal/printable"
)

// sortOrders are the orders of peers: the largest rate, the most drops, the longest round trip, or the name first.
var sortOrders = []string{"rate", "drops", "rtt", "name"}

// plainFlows is how many flows are shown without a terminal.
const plainFlows = 10

// topView shows api.Top documents as lines of text.
type topView struct {
	display
	height int // lines of the terminal; 0: not a terminal
	sort   string
	live   bool // keys work
}

// lines returns the lines for a document, printable apart from styles. A zero document is one before the first.
func (v topView) lines(t api.Top) []string {
	if t.At.IsZero() {
		return []string{"waiting for the first interval"}
	}
	peers := v.peerRows(t.Peers)
	flows := flowRows(t.Flows)
	drops := dropLine(t.Drops)
	room := v.height - 6 // without heading, headings of tables, blank lines and keys
	if drops != "" {
		room--
	}
	if v.height == 0 {
		room = len(peers) + plainFlows
	}
	shown := min(len(peers), max(room-min(len(flows), room/2), 1))
	lines := []string{v.heading(t), ""}
	lines = append(lines, alignedTable(peerHeader, peers, shown)...)
	if drops != "" {
		lines = append(lines, drops)
	}
	lines = append(lines, "")
	lines = append(lines, alignedTable(flowHeader, flows, min(len(flows), max(room-shown, 1)))...)
	return v.fit(lines)
}

// fit cuts lines to the size of the terminal, and adds the keys as the last line.
func (v topView) fit(lines []string) []string {
	if v.height > 0 && len(lines) > v.height-1 {
		lines = lines[:v.height-1]
	}
	if v.live {
		lines = append(lines, "q quit   s sort")
	}
	for i, line := range lines {
		if v.width > 0 {
			line = cut(line, v.width)
		}
		lines[i] = v.paint(v.styleOf(i, len(lines), line), line)
	}
	return lines
}

// styleOf returns the style of a line: headings are bold, and the keys are dim.
func (v topView) styleOf(i, n int, line string) style {
	switch {
	case i == 0, strings.HasPrefix(line, peerHeader[0].name), strings.HasPrefix(line, flowHeader[0].name):
		return bold
	case v.live && i == n-1:
		return dim
	}
	return plain
}

// cut returns the first width characters of a line.
func cut(line string, width int) string {
	for i := range line {
		if width == 0 {
			return line[:i]
		}
		width--
	}
	return line
}

func (v topView) heading(t api.Top) string {
	var sum api.TopRates
	for _, p := range t.Peers {
		sum.TxBits += p.TxBits
		sum.RxBits += p.RxBits
	}
	return fmt.Sprintf("weft top on %s, %s over %.1f s: %s, out %s, in %s; by %s", printable.Text(t.Name),
		t.At.Local().Format("15:04:05"), t.Interval, plural.Count(len(t.Peers), "peer"), bitRate(sum.TxBits), bitRate(sum.RxBits), v.sort)
}

// column is a column of a table.
type column struct {
	name  string
	right bool // aligned, for numbers
}

var peerHeader = []column{
	{"PEER", false}, {"OUT bit/s", true}, {"IN bit/s", true}, {"DROPS/s", true}, {"RTT ms", true}, {"LINK", false}, {"CARRIER", false},
	{"OUT pkt/s", true}, {"IN pkt/s", true},
}

// peerRows returns a row per peer in the order of the view.
func (v topView) peerRows(peers []api.TopPeer) [][]string {
	peers = slices.Clone(peers)
	slices.SortStableFunc(peers, func(a, b api.TopPeer) int {
		switch v.sort {
		case "rate":
			return cmp.Compare(b.TxBits+b.RxBits, a.TxBits+a.RxBits)
		case "drops":
			return cmp.Compare(sumOf(b.Drops), sumOf(a.Drops))
		case "rtt":
			return cmp.Compare(b.RTT, a.RTT)
		}
		return 0 // they are sorted by name
	})
	rows := make([][]string, 0, len(peers))
	for _, p := range peers {
		link, about, rtt := string(p.Link), "", "-"
		if p.State != api.PeerAlive {
			link = string(p.State)
		}
		if p.Estimated {
			about = "~"
		}
		if p.RTT > 0 {
			rtt = strconv.FormatFloat(p.RTT, 'f', 2, 64)
		}
		rows = append(rows, []string{
			cmp.Or(p.Name, p.ID.String()), about + scaled(p.TxBits), about + scaled(p.RxBits), scaled(sumOf(p.Drops)), rtt, link,
			orDash(string(p.Carrier)), about + scaled(p.TxPackets), about + scaled(p.RxPackets),
		})
	}
	return rows
}

var flowHeader = []column{
	{"FLOW bit/s", true}, {"pkt/s", true}, {"PROTO", false}, {"FROM > TO", false}, {"WAY", false}, {"PEER", false}, {"PATH", false},
}

// flowRows returns a row per flow.
func flowRows(flows []api.TopFlow) [][]string {
	rows := make([][]string, 0, len(flows))
	for _, f := range flows {
		way, peer := "in", f.PeerName
		if f.Sent {
			way = "out"
		}
		if peer == "" && !f.Peer.IsZero() {
			peer = f.Peer.String()
		}
		between := "-"
		if f.Source.IsValid() {
			between = endpoint(f.Source, f.SourcePort) + " > " + endpoint(f.Destination, f.DestinationPort)
		}
		rows = append(rows, []string{"~" + scaled(f.Bits), "~" + scaled(f.Packets), f.Protocol, between, way, orDash(peer), string(f.Path)})
	}
	return rows
}

// endpoint returns an address with its port, if it has one.
func endpoint(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}

// dropLine returns the rates of drops by reason, empty without drops.
func dropLine(drops map[string]float64) string {
	var parts []string
	for reason, rate := range drops {
		parts = append(parts, reason+" "+scaled(rate))
	}
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	return "Dropped per second: " + printable.Text(strings.Join(parts, ", "))
}

func sumOf(rates map[string]float64) (sum float64) {
	for _, r := range rates {
		sum += r
	}
	return sum
}

// alignedTable returns a heading and the first rows, as many as shown, in aligned columns.
func alignedTable(header []column, rows [][]string, shown int) []string {
	head := make([]string, len(header))
	widths := make([]int, len(header))
	for i, c := range header {
		head[i] = c.name
	}
	if shown < len(rows) {
		head[0] += fmt.Sprintf(" (%d of %d)", shown, len(rows))
		rows = rows[:shown]
	}
	rows = append([][]string{head}, rows...)
	for _, row := range rows {
		for i := range row {
			row[i] = printable.Text(row[i])
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	lines := make([]string, 0, len(rows))
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, text := range row {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if cells[i] = text + space; header[i].right {
				cells[i] = space + text
			}
		}
		lines = append(lines, strings.TrimRight(strings.Join(cells, "  "), " "))
	}
	return lines
}

// scaled formats a rate with three digits and a unit of 1,000: "0", "12.3", "1.23 k". Rates too small for that are shown as "<0.1".
func scaled(v float64) string {
	const units = " kMGTPE"
	unit := 0
	for v >= 999.5 && unit < len(units)-1 {
		v /= 1000
		unit++
	}
	text := strconv.FormatFloat(v, 'f', digits(v), 64)
	switch {
	case v == 0:
		return "0"
	case unit == 0 && v < 0.05:
		return "<0.1"
	case unit == 0:
		return strings.TrimSuffix(strconv.FormatFloat(v, 'f', min(digits(v), 1), 64), ".0")
	}
	return text + " " + units[unit:unit+1]
}

// bitRate formats a rate with its unit, such as "1.23 Mbit/s".
func bitRate(v float64) string {
	text := scaled(v)
	if !strings.Contains(text, " ") {
		text += " "
	}
	return text + "bit/s"
}

// digits returns the number of decimals with which v has three digits.
func digits(v float64) int {
	switch {
	case v < 9.995:
		return 2
	case v < 99.95:
		return 1
	default:
		return 0
	}
}
