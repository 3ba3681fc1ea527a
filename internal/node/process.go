package node

import (
	"log/slog"
	"os"

	"weft/internal/settings"
)

// Process is what the process around a node provides beside its configuration.
type Process struct {
	Log *slog.Logger
	// Level is that of Log, for a reload to change.
	Level *slog.LevelVar
	// Configuration evaluates flags, environment and file again.
	Configuration Configuration
	// ReloadSignal requests a reload, as "weft reload" does; nil: never.
	ReloadSignal <-chan os.Signal
}

// Configuration is where a node's configuration comes from. Read evaluates it as at the start; it is called by one goroutine at a
// time. Its errors are for people, and most are *hint.Error.
type Configuration interface {
	Read() (settings.Config, error)
}
