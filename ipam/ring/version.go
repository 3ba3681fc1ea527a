package ring

// Bounds of versions that are read from other nodes. A node that writes high numbers cannot use them up: an owner that has no
// higher count writes the first version of the next epoch, and a merge passes over epochs that are far ahead.
const (
	maxEpoch = 1<<22 - 1
	// maxCount is the highest count of changes within an epoch. A thousand changes a second take 17 years to reach it.
	maxCount = 1 << 39
	// maxEpochsAhead is how many epochs a token may be ahead of the latest one that a node knows: how often one space can have been
	// reclaimed while the node was cut off.
	maxEpochsAhead = 256
)

// epochBits is how many bits of a version count the changes within an epoch. The bits above count the epochs: how often
// the space of the token was reclaimed from a dead owner. A version of a later epoch is higher than any version that
// the former owner can write, so all nodes, including the former owner when it comes back, follow the node that
// reclaimed it. See docs/adr/0018-epochs-are-never-rewritten.md.
const epochBits = 40

// epochOf returns how often the space of a token with a version was reclaimed.
func epochOf(version uint64) uint64 { return version >> epochBits }

// Epoch returns how often the space of t was reclaimed.
func (t Token) Epoch() uint64 { return epochOf(t.Version) }

// first returns the version of a new token of an epoch, of the last epoch if there is none such.
func first(epoch uint64) uint64 { return min(epoch, maxEpoch)<<epochBits + 1 }

// next returns the version above version. Where the numbers end, it returns version itself.
func next(version uint64) uint64 {
	if count := version & (1<<epochBits - 1); count < maxCount {
		return version + 1
	}
	return max(version, first(epochOf(version)+1))
}

// valid reports whether a token may have a version.
func valid(version uint64) bool {
	return version > 0 && epochOf(version) <= maxEpoch && version&(1<<epochBits-1) <= maxCount
}

// latestEpoch returns the latest epoch of a token of r.
func (r *Ring) latestEpoch() (epoch uint64) {
	for _, t := range r.tokens {
		epoch = max(epoch, t.Epoch())
	}
	return epoch
}
