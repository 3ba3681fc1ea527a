package hostfilter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read returns the packet filters of the network namespace of the calling thread. It runs nft, and reads the tables of
// iptables-legacy from the kernel without its tool. The error names the parts that cannot be read; the result is the others.
func Read(ctx context.Context) (Ruleset, error) {
	nft, err := ReadNFT(ctx)
	legacy, err2 := ReadLegacy()
	return Ruleset{append(nft.Chains, legacy.Chains...)}, errors.Join(err, err2)
}

// ReadNFT returns the chains of nftables. It runs nft, without counters and without the elements of sets.
func ReadNFT(ctx context.Context) (Ruleset, error) {
	out, err := exec.CommandContext(ctx, "nft", "--stateless", "--terse", "list", "ruleset").Output()
	if err != nil {
		return Ruleset{}, fmt.Errorf("hostfilter: list the rules of nftables: %w", programError(err))
	}
	return ParseNFT(string(out)), nil
}

// programError returns what a program wrote about its failure, instead of its exit code.
func programError(err error) error {
	if e, ok := errors.AsType[*exec.ExitError](err); ok && len(strings.TrimSpace(string(e.Stderr))) > 0 {
		return errors.New(strings.Join(strings.Fields(string(e.Stderr)), " "))
	}
	return err
}

// ReadLegacy returns the chains of iptables-legacy and ip6tables-legacy.
func ReadLegacy() (rules Ruleset, err error) {
	for _, family := range []string{IPv4, IPv6} {
		chains, e := readLegacy(family)
		rules.Chains = append(rules.Chains, chains...)
		err = errors.Join(err, e)
	}
	return rules, err
}

// legacyFamilies has the lists of the legacy tables that exist, and the options of sockets that return them.
var legacyFamilies = map[string]struct {
	names         string
	domain, level int
}{
	IPv4: {"/proc/thread-self/net/ip_tables_names", unix.AF_INET, unix.SOL_IP},
	IPv6: {"/proc/thread-self/net/ip6_tables_names", unix.AF_INET6, unix.SOL_IPV6},
}

// readLegacy returns the chains of all legacy tables of a family. The kernel would make a table that is asked for, so it reads
// only tables that exist.
func readLegacy(family string) (all []*Chain, err error) {
	f := legacyFamilies[family]
	list, err := os.ReadFile(f.names)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the kernel has no legacy tables, or they are not loaded
	} else if err != nil {
		return nil, fmt.Errorf("hostfilter: list the tables of iptables-legacy: %w", err)
	}
	names := strings.Fields(string(list))
	if len(names) == 0 {
		return nil, nil
	}
	fd, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("hostfilter: open a socket for iptables-legacy: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	for _, name := range names {
		t, err := readTable(fd, f.level, family, name)
		if err != nil {
			return all, fmt.Errorf("hostfilter: read table %s of iptables-legacy: %w", name, err)
		}
		chains, err := t.chains()
		if err != nil {
			return all, err
		}
		all = append(all, chains...)
	}
	return all, nil
}

// Options of sockets (IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES), the same for both families, and the layout of their results.
const (
	optInfo    = 64
	optEntries = 65

	tableNameLen = 32
	infoLen      = tableNameLen + 4 + 2*4*numHooks + 4 + 4 // ipt_getinfo: name, hooks, entries, underflows, count, size
	entriesAt    = tableNameLen + 8                        // ipt_get_entries: name, size, padding
)

// tableAttempts bounds the repetitions if the table changes between the two calls.
const tableAttempts = 10

// readTable reads a table that exists.
func readTable(fd, level int, family, name string) (*legacyTable, error) {
	for attempt := 1; ; attempt++ {
		info := make([]byte, infoLen)
		copy(info, name)
		if err := getsockopt(fd, level, optInfo, info); err != nil {
			return nil, err
		}
		t := &legacyTable{family: family, name: name}
		u32 := func(i int) uint32 { return binary.NativeEndian.Uint32(info[tableNameLen+4*i:]) }
		t.validHooks = u32(0)
		for h := range numHooks {
			t.hookEntry[h], t.underflow[h] = u32(1+h), u32(1+numHooks+h)
		}
		size := u32(2 + 2*numHooks)
		buf := make([]byte, entriesAt+int(size))
		copy(buf, name)
		binary.NativeEndian.PutUint32(buf[tableNameLen:], size)
		err := getsockopt(fd, level, optEntries, buf)
		if err == nil {
			t.entries = buf[entriesAt:]
			return t, nil
		}
		if !errors.Is(err, unix.EAGAIN) || attempt == tableAttempts {
			return nil, err
		}
	}
}

// getsockopt passes b to the kernel, which reads and fills it.
func getsockopt(fd, level, option int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
