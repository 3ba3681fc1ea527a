// Package kubernetes installs weft on a real Kubernetes cluster of two nodes as a user does, runs the upstream tests of the
// network, and crashes, deletes and upgrades nodes. It is not part of the ordinary tests: "make e2e" runs it. It needs a
// script that creates such a cluster on one machine ($WEFT_LAB), with these commands:
//
//	deps, build, build-e2e, build-ctd2   install and build the requirements, once
//	up, down                             start and stop the cluster, without a network plugin
//	k ARGS…                              run kubectl
//	nx I CMD…                            run a command on node I
//	e2e FOCUS SKIP                       run the upstream tests; writes a JUnit report to $K8SLAB/cl/report
//	reboot I                             crash node I and start it again
//
// The host of the API server is in the network namespace kcp. It joins the overlay as a host without Kubernetes, because the
// tests reach pods from it.
package kubernetes
