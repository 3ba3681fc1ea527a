package daemon

import (
	"os"
	"runtime/debug"
)

// gcPercent is how much garbage there may be beside what is in use: half of what Go would leave. Nothing on a frame's way
// allocates, so it costs hardly any time, and a daemon among many pods takes less of their memory.
const gcPercent = 50

// limitGarbage sets gcPercent, unless the operator has set GOGC.
func limitGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
