package node

import (
	"os"
	"runtime"
)

// reserveProcessors has the Go runtime run a goroutine more for each loop of the datapath. A loop is in system calls for most of its
// time, and keeps its processor in most of them, so that other goroutines would have to wait.
func reserveProcessors(loops int) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + loops)
	}
}
