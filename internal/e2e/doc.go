// Package e2e holds the tests of weft as users have it: the built programs, on hosts made of network namespaces, with
// real TAPs, bridges and nftables. They need root.
package e2e
