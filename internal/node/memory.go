package node

import (
	"os"
	"runtime/debug"
)

// gcPercent is how much garbage may exist beside live memory, in percent: half of Go's default. Carrying frames allocates nothing,
// so it costs hardly any time, and leaves more memory to the pods.
const gcPercent = 50

// limitGarbage sets gcPercent, unless the operator has set GOGC.
func limitGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
