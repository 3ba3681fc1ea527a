package vxlan

// CloseGate removes the gate, as on a kernel that has none.
func (d *Device) CloseGate() error {
	d.filterMu.Lock()
	defer d.filterMu.Unlock()
	defer func() { d.gate = nil }()
	return d.gate.close()
}
