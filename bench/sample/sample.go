package sample

import "time"

// Values are the figures of one sample.
type Values map[Metric]float64

// Sample is the result of one load, run once through one driver.
type Sample struct {
	Round  int    `json:"round"` // from 1
	Driver string `json:"driver"`
	Load   string `json:"load"`
	Setting
	Values Values `json:"values,omitempty"`
	// Seconds is the duration, including start, end and repetitions.
	Seconds float64 `json:"seconds"`
	// Bytes is the payload that was carried, including the warm-up, to which the CPU times refer.
	Bytes uint64 `json:"bytes,omitempty"`
	// DaemonCPU and MachineCPU are the CPU seconds used during the load.
	DaemonCPU  float64 `json:"daemon_cpu_s"`
	MachineCPU float64 `json:"machine_cpu_s"`
	// Events are the numbers of events of the daemons during the load, by their names in perf-list(1), without those that the
	// machine cannot count.
	Events map[string]uint64 `json:"events,omitempty"`
	// OtherCores is the average number of cores used by processes that do not belong to the bench, including time stolen
	// by the hypervisor.
	OtherCores float64 `json:"foreign_cores"`
	// Tries is the number of measurements. A measurement is repeated if other work disturbed it.
	Tries int `json:"tries"`
	// Busy marks a sample that other work disturbed in all tries.
	Busy bool `json:"busy,omitempty"`
	// Error is the reason why there are no values.
	Error string `json:"error,omitempty"`
}

// Facts describe an overlay as it was measured.
type Facts struct {
	Version string `json:"version,omitempty"`
	// MTU is the MTU of the ends.
	MTU int `json:"mtu,omitempty"`
	// Ends is a phrase that describes the endpoints of the loads, to follow "between".
	Ends string `json:"ends,omitempty"`
	// Encrypted is whether the traffic was encrypted. Cipher names the cipher.
	Encrypted bool   `json:"encrypted"`
	Cipher    string `json:"cipher,omitempty"`
	// Tuned lists the settings that differ from the defaults.
	Tuned []string `json:"tuned,omitempty"`
}

// Driver describes a driver in a run.
type Driver struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
	Facts   Facts  `json:"facts"`
	// Unavailable is the reason why the driver was not measured, or empty.
	Unavailable string `json:"unavailable,omitempty"`
}

// Load describes a load in a run.
type Load struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
}

// Machine describes the machine, on which figures and ratios may depend.
type Machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	MemoryGB float64           `json:"memory_gb"`
	Kernel   string            `json:"kernel"`
	Go       string            `json:"go"`
	Iperf3   string            `json:"iperf3"`
	Sysctls  map[string]string `json:"sysctls"`
	// NotCounted has the events that the machine cannot count, with the reasons.
	NotCounted map[string]string `json:"not_counted,omitempty"`
}

// Results is a whole run, and the content of results.json.
type Results struct {
	// Command is the command line that repeats the run.
	Command string    `json:"command"`
	Date    time.Time `json:"date"`
	// Weft is the version of weft that was measured.
	Weft    string  `json:"weft"`
	Machine Machine `json:"machine"`
	Rounds  int     `json:"rounds"`
	Seconds int     `json:"seconds"` // of a load
	// Underlay describes how the hosts were connected.
	Underlay string   `json:"underlay"`
	Drivers  []Driver `json:"drivers"`
	Loads    []Load   `json:"loads"`
	Samples  []Sample `json:"samples"`
	// Interrupted is whether the run was ended early.
	Interrupted bool `json:"interrupted,omitempty"`
}

// Find returns the driver with the given name, and false if the run had none.
func (r *Results) Find(name string) (Driver, bool) {
	for _, d := range r.Drivers {
		if d.Name == name {
			return d, true
		}
	}
	return Driver{}, false
}
