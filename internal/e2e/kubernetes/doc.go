// Package kubernetes installs weft on a real Kubernetes of two nodes as a user would, runs upstream's tests of the network, and has
// nodes crash, be deleted and be upgraded. It is not part of the ordinary tests: "make e2e" runs it, with a script that makes
// such a cluster on one machine (WEFT_LAB) and has these commands:
//
//	deps, build, build-e2e, build-ctd2   what it needs, once
//	up, down                             the cluster, whose nodes have no network plugin yet
//	k ARGS…                              kubectl
//	nx I CMD…                            a command on node I
//	e2e FOCUS SKIP                       upstream's tests, with a JUnit report in $K8SLAB/cl/report
//	reboot I                             node I crashes and starts again
//
// The API server's host is in the namespace kcp and joins the overlay as a bare host, as the tests want to reach pods from it.
package kubernetes
