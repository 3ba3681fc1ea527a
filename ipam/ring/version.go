package ring

// Versions order the changes of a token. The lower epochBits bits count the changes within an epoch; the bits above count the
// epochs: how often the space of the token was reclaimed from a dead owner. A version of a later epoch is higher than any version
// that the former owner can write, so all nodes, including the former owner when it comes back, follow the node that reclaimed it.
// See docs/adr/0018-epochs-are-never-rewritten.md.
//
// Correct nodes never reach the bounds. Where a hostile member has written the highest count, the owner cannot change the token any
// more: it grants nothing of it, and gives it up where it would have to write above another claim. Where a member has written the
// last epoch, the space cannot be reclaimed. Both keep one owner for each address.
const (
	epochBits = 40
	// maxCount is the highest count of changes within an epoch. A thousand changes a second take 17 years to reach it.
	maxCount = 1 << 39
	maxEpoch = 1<<22 - 1
)

// epochOf returns how often the space of a token with a version was reclaimed.
func epochOf(version uint64) uint64 { return version >> epochBits }

// Epoch returns how often the space of t was reclaimed.
func (t Token) Epoch() uint64 { return epochOf(t.Version) }

// first returns the version of a new token of an epoch.
func first(epoch uint64) uint64 { return epoch<<epochBits + 1 }

// next returns the version above version, of the same epoch. ok is false if there is none.
func next(version uint64) (above uint64, ok bool) {
	return version + 1, version&(1<<epochBits-1) < maxCount
}

// valid reports whether a token may have a version.
func valid(version uint64) bool {
	return version > 0 && epochOf(version) <= maxEpoch && version&(1<<epochBits-1) <= maxCount
}
