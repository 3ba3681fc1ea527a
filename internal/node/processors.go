package node

import (
	"os"
	"runtime"
)

// reserveProcessors has the Go runtime run a goroutine more for each loop of the datapath. A loop keeps a thread of its own, which
// is in system calls for most of its time: when it returns from one and all processors of the runtime are in use, it would have to wait
// until another thread hands one over.
func reserveProcessors(loops int) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + loops)
	}
}
