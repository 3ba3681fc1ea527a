// Package e2e contains end-to-end tests: they run the built programs on hosts made of network namespaces, with real TAPs,
// bridges and nftables. They need root.
package e2e
