// Command pause waits for SIGTERM or SIGINT. In tests it keeps the namespaces of a pod alive.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	done := make(chan os.Signal, 1)
	signal.Notify(done, syscall.SIGTERM, syscall.SIGINT)
	<-done
}
