// Package kubernetes installs weft on real Kubernetes clusters of two nodes as a user does, runs the upstream tests of the network, and
// crashes, deletes and upgrades nodes. It is not part of the ordinary tests: "make e2e" and "make e2e-smoke" run it.
//
// The folder lab has the scripts that create a cluster on one machine. setting_test.go lists the kinds of clusters, with the steps and the
// upstream tests that run on each. Results are kept in a folder for each version and setting (package outcome), so that a run that breaks
// off goes on later, and docs/CONFORMANCE.md is made from them (package page).
//
// The host of the API server joins the overlay as a host without Kubernetes, because the upstream tests reach pods from it.
package kubernetes
