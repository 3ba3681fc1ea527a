package sample

import "time"

// Values are the figures of one sample.
type Values map[Metric]float64

// Sample is one load, run once through one driver.
type Sample struct {
	Round  int    `json:"round"` // from 1
	Driver string `json:"driver"`
	Load   string `json:"load"`
	Values Values `json:"values,omitempty"`
	// Seconds is how long it took, its start and end included.
	Seconds float64 `json:"seconds"`
	// Bytes is the payload carried, warm-up included: what the CPU times stand beside.
	Bytes uint64 `json:"bytes,omitempty"`
	// DaemonCPU and MachineCPU are CPU seconds spent meanwhile.
	DaemonCPU  float64 `json:"daemon_cpu_s"`
	MachineCPU float64 `json:"machine_cpu_s"`
	// Foreign is how many cores work that is not the bench's took meanwhile, time stolen by the hypervisor included.
	Foreign float64 `json:"foreign_cores"`
	// Tries counts the runs of it, the last of which this is: other work makes it be repeated.
	Tries int `json:"tries"`
	// Busy marks a sample that other work may have distorted after all tries.
	Busy bool `json:"busy,omitempty"`
	// Error says why there are no values.
	Error string `json:"error,omitempty"`
}

// Facts is what is true of an overlay as it was measured.
type Facts struct {
	Version string `json:"version,omitempty"`
	// MTU is what the ends could use for their packets.
	MTU int `json:"mtu,omitempty"`
	// Ends says what the load ran between.
	Ends string `json:"ends,omitempty"`
	// Encrypted is whether the traffic was sealed, Cipher with what.
	Encrypted bool   `json:"encrypted"`
	Cipher    string `json:"cipher,omitempty"`
	// Tuned is what was not left as it comes.
	Tuned []string `json:"tuned,omitempty"`
}

// Driver is a way of carrying traffic, and what became of it in the run.
type Driver struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
	Facts   Facts  `json:"facts"`
	// Unavailable is the sentence that says why it was not measured, or empty.
	Unavailable string `json:"unavailable,omitempty"`
}

// Load is what was done through each driver.
type Load struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
}

// Machine is what ratios may depend on.
type Machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	MemoryGB float64           `json:"memory_gb"`
	Kernel   string            `json:"kernel"`
	Go       string            `json:"go"`
	Iperf3   string            `json:"iperf3"`
	Sysctls  map[string]string `json:"sysctls"`
}

// Results are a whole run, as results.json holds it.
type Results struct {
	// Command is how to have it again.
	Command string    `json:"command"`
	Date    time.Time `json:"date"`
	// Weft is the version of weft that was measured.
	Weft    string  `json:"weft"`
	Machine Machine `json:"machine"`
	Rounds  int     `json:"rounds"`
	Seconds int     `json:"seconds"` // of a load
	// Underlay says what the hosts were joined by.
	Underlay string   `json:"underlay"`
	Drivers  []Driver `json:"drivers"`
	Loads    []Load   `json:"loads"`
	Samples  []Sample `json:"samples"`
	// Interrupted says that the run was ended early.
	Interrupted bool `json:"interrupted,omitempty"`
}

// Find returns the driver of that name; not ok where the run had none.
func (r *Results) Find(name string) (Driver, bool) {
	for _, d := range r.Drivers {
		if d.Name == name {
			return d, true
		}
	}
	return Driver{}, false
}
