package harness

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"weft/bench/sample"
)

// sysctls are the kernel settings that may affect the throughput.
var sysctls = []string{
	"net.core.rmem_max", "net.core.wmem_max", "net.core.rmem_default", "net.core.netdev_max_backlog", "net.core.default_qdisc",
	"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.ipv4.tcp_congestion_control",
	"net.bridge.bridge-nf-call-iptables", "kernel.unprivileged_bpf_disabled",
}

// Machine returns a description of this machine. Unknown fields are empty.
func Machine(ctx context.Context) sample.Machine {
	m := sample.Machine{
		CPU:      field("/proc/cpuinfo", "model name"),
		Cores:    runtime.NumCPU(),
		Kernel:   trimmed("/proc/sys/kernel/osrelease"),
		Go:       runtime.Version(),
		Iperf3:   iperf3Version(ctx),
		Sysctls:  map[string]string{},
		MemoryGB: memory(field("/proc/meminfo", "MemTotal")),
	}
	for _, name := range sysctls {
		// Dots stand for slashes, as for sysctl(8).
		if v := trimmed(filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))); v != "" {
			m.Sysctls[name] = v
		}
	}
	return m
}

// trimmed returns the text of a file on one line, or "" if it cannot be read.
func trimmed(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(b)), " ")
}

// field returns the value of the first "name : value" line in a file.
func field(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// memory parses text such as "16384 kB" and returns the size in GiB.
func memory(s string) float64 {
	kb, _ := strconv.ParseFloat(strings.TrimSuffix(s, " kB"), 64)
	return kb / (1 << 20)
}

func iperf3Version(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "iperf3", "--version").Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}
