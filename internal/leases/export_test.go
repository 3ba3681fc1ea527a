package leases

// EndStaleNames is a step of Run.
var EndStaleNames = (*Manager).endStaleNames

// LostRemedy is the remedy of a lost lease.
var LostRemedy = lostRemedy
