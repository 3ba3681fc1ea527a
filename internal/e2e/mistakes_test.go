package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// mistake is a command line that is wrong, or that asks for what cannot be done now, and what a person reads about it.
type mistake struct {
	env  string // a variable of the environment, or empty
	line string // arguments of weft, separated by spaces; "_" in an argument is a space
	code int
	text string // on stderr, without "weft: "
	hint string // behind it, without "hint: "
}

// Mistakes that need no node. WEFT_STATE_DIR and WEFT_SOCKET are set. {state}, {socket}, {config} and {folder} are paths of the test.
var mistakesWithoutNode = []mistake{
	// Commands and flags that do not exist.
	{"", "pears", 2, `"pears" is not a command of weft`, `Did you mean "weft peers"? "weft --help" lists the commands.`},
	{"", "stat", 2, `"stat" is not a command of weft`, `Did you mean "weft status"? "weft --help" lists the commands.`},
	{"", "claim web 10.32.0.9", 2, `"claim" is not a command of weft`, `Did you mean "weft ip claim"? "weft --help" lists the commands.`},
	{"", "dns rm web", 2, `"rm" is not a command of weft dns`, `"weft dns --help" lists the commands.`},
	{"", "help pears", 2, `"pears" is not a command of weft`, `Did you mean "weft peers"? "weft --help" lists the commands.`},
	{"", "up --secretfile x", 2, "weft up has no flag --secretfile", `Did you mean --secret-file? "weft up --help" lists the flags.`},
	{"", "up -mtu 1400", 2, "weft up has no flag -mtu", `Did you mean --mtu? "weft up --help" lists the flags.`},
	{"", "status --jsno", 2, "weft status has no flag --jsno", `Did you mean --json? "weft status --help" lists the flags.`},
	{"", "up --mtu", 2, "--mtu: it has no value", `Write a value after it. "weft up --help" describes it.`},

	// Arguments.
	{"", "attach p", 2, `weft attach takes no arguments, and has "p"`, "Did you mean --netns /run/netns/p?"},
	{"", "attach 4711", 2, `weft attach takes no arguments, and has "4711"`, "Did you mean --pid 4711?"},
	{"", "detach /run/netns/p", 2, `weft detach takes no arguments, and has "/run/netns/p"`, "Did you mean --netns /run/netns/p?"},
	{"", "attach", 2, "exactly one of --netns, --pid and --container is required",
		"Name the namespace with --netns, a process in it with --pid, or a container with --container."},
	{"", "connect", 2, "weft connect needs at least 1 argument, and has none", "Usage: weft connect [--replace] PEER..."},
	{"", "leave host1", 2, `weft leave takes no arguments, and has "host1"`, "Usage: weft leave [flags]"},
	{"", "ip claim web", 2, "weft ip claim needs 2 arguments, and has 1 argument", "Usage: weft ip claim OWNER IP [flags]"},

	// Values.
	{"", "attach --pid abc", 2, `--pid: "abc" is not a whole number`, "Write a number in digits, without a unit."},
	{"", "attach --pid -3", 2, "--pid: -3 is not a process ID", "Use the ID of a running process."},
	{"", "attach --netns p --guard most", 2, `--guard: "most" is unknown`, "Choose pods, host or off."},
	{
		"", "up --dns-domain local", 2, "--dns-domain: the domain local belongs to mDNS (RFC 6762)",
		"Write a domain below it, such as weft.local, or one that your organization owns.",
	},
	{
		"", "up --dns-domain Pods.example.", 2, `--dns-domain: "Pods.example." has capitals, or a dot at an end`,
		"Write pods.example.",
	},
	{"", "up --mtu abc", 2, `--mtu: "abc" is not a whole number`, "Write a number in digits, without a unit."},
	{"", "up --mtu 100", 2, "--mtu: 100 is out of range", "Choose 576 to 65521, or 0 to derive it from the underlay."},
	{
		"", "up --mtu 9000", 2, "--mtu: 9000 does not fit the underlay: eth0 has an MTU of 1500, which leaves 1438 for pods",
		"Choose 1438 or less, or 0 for the largest that fits, or raise the MTU of eth0.",
	},
	{"", "up --init-peers some", 2, `--init-peers: "some" is not a whole number`, "Write a number in digits, without a unit."},
	{
		"", "up --lease-grace 5", 2, `--lease-grace: "5" is a duration without a unit`,
		"Write a unit after the number, such as 5s, 5m or 5h.",
	},
	{"", "wait --timeout soon", 2, `--timeout: "soon" is not a duration`, "Write a number and its unit, such as 30s, 5m or 2h."},
	{
		"", "up --name a_b", 2, `--name: "a b" cannot be the name of a node`,
		"Use up to 255 letters, digits, hyphens, dots and underscores, such as a-b.",
	},
	{
		"", "up --trusted-subnets 192.0.2.1/24", 2, "--trusted-subnets: 192.0.2.1/24 has bits set behind its prefix",
		"Write 192.0.2.0/24, or 192.0.2.1/32 for that address alone.",
	},
	{"", "up --range 10.32.0.1/12", 2, "--range: 10.32.0.1/12 has bits set behind its prefix", "Write 10.32.0.0/12."},
	{"", "up --range hello", 2, `--range: "hello" is not a CIDR`, "Use an address and a prefix length, such as 10.32.0.0/12."},
	{
		"", "up --http-addr nowhere", 2, `--http-addr: "nowhere" is not an address with a port`,
		"Give an IP address and a port, such as 127.0.0.1:6782, or an empty value to turn it off.",
	},
	{"", "up --advertise here", 2, `--advertise: "here" is not an IP address`, "Use an address such as 192.168.1.2."},
	{
		"", "up --datapath kernal", 2, `--datapath: "kernal" is unknown`, "Did you mean kernel? Choose one of auto, userspace, kernel.",
	},
	{"", "up --cipher rot13", 2, `--cipher: "rot13" is unknown`, "Choose one of auto, aes-256-gcm, chacha20-poly1305."},
	{"", "up --log-level loud", 2, `--log-level: "loud" is unknown`, "Choose debug, info, warn or error."},
	{"", "up 2001:db8::1", 2, `PEER: "2001:db8::1" is an IPv6 address without brackets`, `Write "[2001:db8::1]".`},
	{"", "up http://host1", 2, `PEER: "http://host1" is a URL, and a peer is a host`, "Write host1."},
	{"", "up a_b", 2, `PEER: "a b" is not a host name or address`, "A peer is HOST or HOST:PORT, with an IPv6 address in brackets."},
	{
		"", "up host1:many", 2, `PEER: "host1:many" has the port "many", which is not a number from 1 to 65535`,
		"Write the gossip port of that node, or host1 alone for 6783.",
	},
	{
		"", "identity request --name x/y", 2, `--name: "x/y" cannot be the name of a node`,
		"Use up to 255 letters, digits, hyphens, dots and underscores, such as x-y.",
	},
	{"", "up --state-dir {config}", 2, "--state-dir: {config} is a file", "Name a directory."},
	{
		"", "attach --netns p --allow-address x", 2, `--allow-address: "x" is neither an address nor a prefix`,
		"Write an address, or a prefix such as 10.32.5.0/24.",
	},
	{
		"", "completion bsh", 2, `"bsh" is not a command of weft completion`,
		`Did you mean "weft completion bash"? "weft completion --help" lists the commands.`,
	},
	{"", "ip claim web here", 2, `"here" is not an IP address`, "Use an address of the overlay, such as 10.32.0.1."},
	{"", "ip allocate web --in 10.32.0.1", 2, `--in: "10.32.0.1" is not a CIDR`, "Use a part of the range, such as 10.32.5.0/24."},
	{"", "dns add web 10.32.0", 2, `"10.32.0" is not an IP address`, "Use an address of the overlay, such as 10.32.0.1."},

	// Environment and file.
	{
		"WEFT_MUT=1400", "up", 2, `the environment variable WEFT_MUT is unknown`,
		`Did you mean WEFT_MTU? Otherwise unset it: the variables of a node are WEFT_ and the name of a flag of "weft up".`,
	},
	{
		"WEFT_MTU=big", "up", 2, `--mtu: "big" is not a whole number (environment variable WEFT_MTU)`,
		"Write a number in digits, without a unit.",
	},
	{"", "up --config {folder}/none", 2, "--config: open {folder}/none: no such file or directory", "Name a readable YAML file."},
	{
		"rang: 10.0.0.0/8", "up --config {config}", 2, `unknown key "rang" in {config}`,
		`Did you mean range? The keys of the file are the flags of "weft up", without dashes before them.`,
	},
	{
		"peers: [host1]", "up --config {config}", 2, `unknown key "peers" in {config}`,
		`Peers are arguments, as in "weft up host1", and not in the file.`,
	},
	{
		"mtu: tiny", "up --config {config}", 2, `--mtu: "tiny" is not a whole number (mtu in {config})`,
		"Write a number in digits, without a unit.",
	},
	{
		"mtu: {a: b}", "up --config {config}", 2, `the key "mtu" in {config} has neither a value nor a list of values`,
		`Write a line KEY: VALUE for each flag, such as "mtu: 1400".`,
	},

	// No node.
	{"", "status", 3, "no weft daemon answers at {socket}", `Start it with "weft up", or name its socket with --socket or WEFT_SOCKET.`},
	{"", "ip list", 3, "no weft daemon answers at {socket}", `Start it with "weft up", or name its socket with --socket or WEFT_SOCKET.`},
	{
		"", "wait --timeout 10ms", 3, "no weft daemon answers at {socket}",
		`Start it with "weft up", or name its socket with --socket or WEFT_SOCKET.`,
	},
}

// Mistakes beside a node with the target 192.168.77.99, a pod with the address 10.32.0.2 in the namespace {pod}, and the name web.
var mistakesWithNode = []mistake{
	{"", "wait --for peers=4 --timeout 1ms", 1, "not within 1ms: 1 of 4 nodes are alive",
		`"weft peers" shows the nodes, and "weft status" which targets are not reached.`},
	{"", "wait --for peers=x", 2, `"peers=x" is not a number of peers`, "Write a number of nodes, such as peers=3."},
	{"", "wait --for pods", 2, `"pods" is not a condition`, "Wait for ready, ipam or peers=N."},
	{"", "connect 2001:db8::1", 2, `"2001:db8::1" is an IPv6 address without brackets`, `Write "[2001:db8::1]".`},
	{"", "forget neverthere", 1, `"neverthere" is not a target of this node`, "This node dials 192.168.77.99:6783."},
	{
		"", "forget 192.168.77.9", 1, `"192.168.77.9" is not a target of this node`,
		"Did you mean 192.168.77.99:6783? This node dials 192.168.77.99:6783.",
	},
	{
		"", "attach --netns no-such-namespace", 1,
		`not a network namespace to join: "/run/netns/no-such-namespace" does not exist`,
		`List namespaces with "ip netns", or name a running process in it with --pid: that also works where the daemon does not see the ` +
			"host's mounts.",
	},
	{
		"", "attach --netns {config}", 1, `not a network namespace to join: "{config}" is another kind of file`,
		`List namespaces with "ip netns", or name a running process in it with --pid: that also works where the daemon does not see the ` +
			"host's mounts.",
	},
	{
		"", "detach --netns no-such-namespace", 1,
		"there is no namespace at /run/netns/no-such-namespace, and nothing is attached under that path",
		`"weft ip list" shows what is attached.`,
	},
	{
		"", "attach --netns {pod} --hostname a_b", 2, `not a name: "a b"`,
		"A name consists of letters, digits and hyphens, with dots between labels, such as web or web.shop.",
	},
	{
		"", "expose 10.32.0.2/12", 1, `address in use: 10.32.0.2 is leased to "netns:{pod}/eth0"`,
		`Choose another address, or release that one first: "weft ip list" shows the leases of this node.`,
	},
	{
		"", "ip claim x 10.32.0.0", 2, "10.32.0.0 is the address of the network 10.32.0.0/12 itself",
		"Choose another address: no host may have that one.",
	},
	{
		"", "ip claim x 10.47.255.255", 2, "10.47.255.255 is the broadcast address of 10.32.0.0/12",
		"Choose another address: no host may have that one.",
	},
	{
		"", "ip claim x 192.0.2.1", 2, "not an address of the overlay: 192.0.2.1 is outside of 10.32.0.0/12",
		`"weft ipam" shows the ranges of the overlay.`,
	},
	{
		"", "attach --netns {pod} --ip 10.32.0", 2, `"10.32.0" is not an address`,
		"Write auto, an address, or an address and a prefix length.",
	},
	{
		"", "attach --netns {pod} --ifname a/b", 2, `bad interface name: "a/b"`,
		"An interface name has 1 to 15 characters, without spaces and slashes.",
	},
	{"", "dns add a..b 10.32.0.1", 2, `not a name: "a..b"`,
		"A name consists of letters, digits and hyphens, with dots between labels, such as web or web.shop."},
	{"", "capture -w /nodir/x", 2, "--write: open /nodir/x: no such file or directory",
		"Name a new file in a writable folder, or one of your own to replace."},
	{"", "ip lookup zebra", 1, `"zebra" has no address on this node`, `"weft ip list" shows the owners.`},
	{"", "ip lookup vap", 1, `"vap" has no address on this node`, `Did you mean vip? "weft ip list" shows the owners.`},
	{"", "ip release zebra", 1, `unknown owner: "zebra" holds no address on this node`, `List the owners with "weft ip list".`},
	{"", "dns lookup wep", 1, `no node has added the name "wep"`, `Did you mean web? "weft dns list" shows all names.`},
	{"", "dns lookup 10.32.0.77", 1, "no name has the address 10.32.0.77", `"weft dns list" shows all names.`},
	{
		"", "dns remove wep", 1, `no such name on this node: "wep"`,
		`Each node removes its own names: "weft dns list" shows which node has it.`,
	},
	{
		"", "dns add x 192.0.2.1", 2, "192.0.2.1 is in none of the overlay's ranges",
		`"weft ipam" shows the ranges; "weft dns add --external" names an address outside them.`,
	},
	{"", "reclaim neverthere", 1, `no node has the name "neverthere"`, `Give the ID; "weft ipam" shows which nodes own addresses.`},
	{"", "capture --peer neverthere", 1, `no live peer has the name or the ID "neverthere"`, `"weft peers" lists the peers.`},
	{
		"", "capture tcp prt 80", 2,
		`not a filter: "prt" (word 2) stands where a condition such as host 10.32.0.1, tcp port 80 or arp should be`,
		`Write it as for tcpdump, such as "tcp port 80 and host 10.32.0.1"; "weft capture --help" lists the words.`,
	},
	{
		"", "up", 2, "--socket: another weft daemon answers at {socket}",
		"Stop it first, or give this one its own --socket, --state-dir, --bridge, --tap and --port.",
	},
}

// TestMistakes: what a person reads about each mistake, to the letter. Review a change of a sentence as prose: it has to say what is
// wrong with the value that was written, and one fix.
func TestMistakes(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	idle, n := nodes[0], nodes[1]
	up(t, n, "192.168.77.99", "--init-peers", "1")
	waitReady(t, nodes[1:])
	p := attach(t, n, "p", "--hostname", "web", "--ip", "10.32.0.2")
	do(t, n, "ip", "allocate", "vip")
	for _, m := range mistakesWithoutNode {
		m.check(t, idle, "")
	}
	for _, m := range mistakesWithNode {
		m.check(t, n, p.Path())
	}
	// The same addresses as "weft attach" prints them, and the same namespace by its name, are no mistakes.
	do(t, n, "ip", "claim", "vip2", "10.32.0.9/12")
	if out := do(t, n, "dns", "lookup", "10.32.0.2/12"); out != "web" {
		t.Errorf("dns lookup of an address with a prefix length: %q", out)
	}
	do(t, n, "detach", "--netns", filepath.Base(p.Path()))
}

// check runs a command line on the host of a node, and compares what it prints with m.
func (m mistake) check(t *testing.T, n *cluster.Node, pod string) {
	t.Helper()
	folder := n.Dir()
	config := filepath.Join(folder, "weft.yaml")
	paths := strings.NewReplacer("{state}", n.StateDir(), "{socket}", n.Socket(), "{config}", config, "{folder}", folder, "{pod}", pod)
	var args []string
	for arg := range strings.FieldsSeq(m.line) {
		args = append(args, strings.ReplaceAll(paths.Replace(arg), "a_b", "a b"))
	}
	cmd := n.Weft(testContext(t), args...)
	cmd.Env = append(cmd.Env, "WEFT_STATE_DIR="+n.StateDir())
	text := ""
	if strings.Contains(m.line, "{config}") {
		text = m.env
	} else if m.env != "" {
		cmd.Env = append(cmd.Env, m.env)
	}
	if err := os.WriteFile(config, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	want := "weft: " + m.text
	switch {
	case m.hint != "" && m.code == 2:
		want += "; hint: " + m.hint // one line for programs
	case m.hint != "":
		want += "\nhint: " + m.hint
	}
	want += "\n"
	if want = paths.Replace(want); code != m.code || errs.String() != want || out.String() != "" {
		t.Errorf("%s weft %s: exit code %d, want %d; printed\n%s%swant\n%s",
			m.env, strings.Join(args, " "), code, m.code, out.String(), errs.String(), want)
	}
}

// TestUserWithoutRoot: the first thing that such a user reads is to be root.
func TestUserWithoutRoot(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	start(t, []*cluster.Node{n})
	dir, err := os.MkdirTemp("", "weft-user-") // which the user can enter, as t.TempDir is not
	if err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		err = errors.Join(os.Chmod(dir, 0o755), os.Link(filepath.Join(bin, "weft"), filepath.Join(dir, "weft")))
	}
	if err != nil {
		t.Fatal(err)
	}
	socket := "weft: this user may not use the socket " + n.Socket() + "\nhint: Run the command as root, for example with sudo.\n"
	for line, want := range map[string]string{
		"status":           socket,
		"ip list":          socket,
		"attach --netns p": socket,
		"wait":             socket,
		"forget host1":     socket,
		"reload":           socket,
		"doctor":           "weft: weft doctor needs root: without it most checks cannot look at the host\nhint: Run \"sudo weft doctor\".\n",
		"doctor --mtu 1400": "weft: weft doctor needs root: without it most checks cannot look at the host\n" +
			"hint: Run \"sudo weft doctor\".\n",
		"up": "weft: weft up: the capability CAP_NET_ADMIN is missing; " +
			"hint: Run it as root, for example with sudo, or give it CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN.\n",
		"identity request --state-dir /var/lib/none": "weft: --state-dir: mkdir /var/lib/none: permission denied; " +
			"hint: Run it as root, for example with sudo.\n",
	} {
		argv := append([]string{"-S", "65534", "-G", "65534", "--net=" + n.Path(), "--", filepath.Join(dir, "weft")}, strings.Fields(line)...)
		cmd := exec.CommandContext(testContext(t), "nsenter", argv...)
		cmd.Env = append(os.Environ(), "WEFT_SOCKET="+n.Socket())
		out, err := cmd.CombinedOutput()
		if err == nil || string(out) != want {
			t.Errorf("weft %s: %v, printed\n%swant\n%s", line, err, out, want)
		}
	}
}

// TestFullDisk: a command that cannot be saved is refused with what to do about it, and is no wrong usage.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	if err := os.Mkdir(n.StateDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", n.StateDir(), "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(n.StateDir(), unix.MNT_DETACH) })
	start(t, []*cluster.Node{n})
	attach(t, n, "first")
	second := labtest.AddPod(t, n.Host, "second")
	filler := filepath.Join(n.StateDir(), "filler")
	if err := os.WriteFile(filler, make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	advice := "hint: Free space on the file system of " + n.StateDir() + ", and try again."
	for _, args := range [][]string{
		{"attach", "--netns", second.Path(), "--hostname", "full"}, {"connect", "192.168.77.99"}, {"dns", "add", "full", "10.32.0.1"},
	} {
		out, err := n.Do(testContext(t), args...)
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || !strings.HasSuffix(out, advice) ||
			!strings.Contains(out, "no space left on device") {
			t.Errorf("weft %v on a full disk: %v; want %q", args, err, advice)
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	do(t, n, "attach", "--netns", second.Path(), "--hostname", "full")
}

// TestCommandsWaitForTheStart: the commands of a script right after "weft up" in the background wait for the node.
func TestCommandsWaitForTheStart(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	p := labtest.AddPod(t, n.Host, "p")
	up(t, n)
	do(t, n, "wait", "--for", "ipam")
	do(t, n, "attach", "--netns", p.Path())
}

// TestAttachNamesWhatItWaitsFor: the error on a node that waits for others names them, and no internal holder of an address.
func TestAttachNamesWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	p := labtest.AddPod(t, n.Host, "p")
	up(t, n, "--init-peers", "3")
	do(t, n, "wait", "--for", "peers=1")
	out, err := n.Do(testContext(t), "attach", "--netns", p.Path())
	const want = "weft: no address for the bridge (the gateway of pods): still waiting for bootstrap nodes to divide 10.32.0.0/12: " +
		"1 of 3 have met"
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || !strings.HasPrefix(out, want) {
		t.Errorf("%v; want %q", err, want)
	}
}
