//go:build man

package main

import (
	"weft/internal/api"
	"weft/internal/docgen"
)

// manSections are the sections of weft(8) that the command tree does not have.
var manSections = []docgen.ManSection{
	{Name: "FIRST STEPS", Parts: []docgen.ManPart{
		{Text: "Check that the host has what a node needs, start a node on each host, and attach a network namespace:"},
		{Code: "host1# weft doctor\nhost1# weft up\nhost2# weft up host1\n" +
			"host2# ip netns add p\nhost2# weft attach --netns /run/netns/p\nhost2# weft status"},
		{Text: "As a service, a node reads its settings from /etc/weft/weft.yaml and gets its peers by a command:"},
		{Code: "host2# systemctl enable --now weft\nhost2# weft connect host1"},
		{Text: "Each condition in the output of \"weft status\" has the command that helps."},
	}},
	{Name: "ENVIRONMENT", Parts: []docgen.ManPart{
		{Term: api.SocketEnv, Text: "Path of the daemon's API socket, as --socket."},
		{Term: "WEFT_NAME, WEFT_PORT, ...", Text: "Flags of \"weft up\", in capitals and with _ in place of -. A flag wins over the\n" +
			"environment, which wins over the file of --config."},
		{Term: "NO_COLOR, TERM", Text: "Without colors if NO_COLOR is set, or TERM is dumb; see --color."},
	}},
	{Name: "FILES", Parts: []docgen.ManPart{
		{Term: "/etc/weft/weft.yaml", Text: "Settings of the service: flags of \"weft up\" as keys."},
		{Term: "/etc/weft/secret", Text: "The secrets of the network, one a line, owned by root with mode 0600. The service reads it\n" +
			"if the settings have the key secret-file."},
		{Term: "/var/lib/weft", Text: "State (--state-dir): node.key identifies the node, ipam.db has its addresses and leases,\n" +
			"targets.json the peers that it dials, names.json the names that it published. Never copy it to another host."},
		{Term: api.DefaultSocket, Text: "The API socket (--socket), for root."},
		{Term: "/usr/share/doc/weft", Text: "The documents. Start with README.md; docs/OPERATIONS.md has a section for each condition."},
	}},
	{Name: "EXIT STATUS", Parts: []docgen.ManPart{
		{Term: "0", Text: "Done."}, {Term: "1", Text: "Refused or failed; the error says why, and what helps."},
		{Term: "2", Text: "Wrong usage. Nothing has changed."}, {Term: "3", Text: "No daemon answers."},
	}},
	{Name: "EXAMPLES", Parts: []docgen.ManPart{
		{Text: "Encrypt all traffic, with one secret on all hosts:"},
		{Code: "host1# umask 077\nhost1# install -d -m 700 /etc/weft\nhost1# weft secret generate > /etc/weft/secret\n" +
			"host1# weft up --secret-file /etc/weft/secret"},
		{Text: "A name for a namespace, and what it resolves to:"},
		{Code: "host2# weft attach --netns /run/netns/p --hostname web\nhost1# weft dns lookup web"},
		{Text: "Watch the traffic, and single frames of it:"},
		{Code: "host1# weft top\nhost1# weft capture tcp port 80"},
		{Text: "Take over the addresses of a host that will not return:"},
		{Code: "host1# weft reclaim host3"},
	}},
	{Name: "SEE ALSO", Parts: []docgen.ManPart{{Text: "ip-netns(8), nft(8), systemd.service(5)"}}},
}
