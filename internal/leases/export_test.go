package leases

// EndStaleNames is a step of Run.
var EndStaleNames = (*Manager).endStaleNames
