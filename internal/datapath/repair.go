package datapath

import "weft/internal/hoststate"

// repairKernelPath is the kind of a repair that makes the device of the kernel path again, beside the kinds of package hoststate.
const repairKernelPath = "kernel_path"

// repairKinds returns the kinds of all repairs.
func repairKinds() []string {
	kinds := []string{repairRules, repairKernelPath}
	for _, k := range hoststate.Kinds() {
		kinds = append(kinds, string(k))
	}
	return kinds
}
