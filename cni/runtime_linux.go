package cni

import (
	"fmt"
	"os"
	"strings"
)

// callingRuntime returns the path of the executable that called the plugin; empty if the kernel does not show it. Runtimes that
// share a network have different ones, and a runtime keeps its path when it is upgraded.
func callingRuntime() string {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", os.Getppid()))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(path, " (deleted)") // it was replaced while it runs
}
