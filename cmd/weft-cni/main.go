// Command weft-cni is the CNI plugin of weft, installed as /opt/cni/bin/weft. It serves the CNI protocol to the container
// runtime and calls the daemon of this host through its socket; see package weft/cni.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"

	"weft/cni"
)

func main() {
	skel.PluginMainFuncs(cni.New().Funcs(), cni.Versions(), cni.About)
}
