package ring

import "weft/internal/peer"

// reignBits is how many bits of a version count the changes within a reign. The bits above count the reigns: how often
// the space of the token was taken from an owner that was gone for good. A version of a later reign is higher than any
// that the former owner can write, so all follow the one who reclaimed it, and the former owner when it comes back.
const reignBits = 40

// reign returns how often the space of a token with a version was reclaimed.
func reign(version uint64) uint64 { return version >> reignBits }

// Reign returns how often the space of t was reclaimed.
func (t Token) Reign() uint64 { return reign(t.Version) }

// first returns the version of a new token of a reign.
func first(reign uint64) uint64 { return reign<<reignBits + 1 }

// Reclaim gives all that gone owns, as far as r knows, to heir: a new reign begins for each of its tokens. It must have
// been agreed on by all other owners, who know what gone gave them last. The delta is as that of Grant.
func (r *Ring) Reclaim(gone, heir peer.ID) (delta *Ring) {
	var changed []uint64
	for i := range r.tokens {
		if r.tokens[i].Owner != gone {
			continue
		}
		t := r.tokens[i]
		t.End = r.effective(i).End // what lies behind is others'
		t.Owner, t.Version, t.Free = heir, first(reign(t.Version)+1), r.capacity(t.Span())
		r.tokens[i] = t
		changed = append(changed, t.Start)
	}
	return r.pick(changed)
}

// depose gives tokens that lie in one of a later reign to its owner: whoever wrote them had been replaced. All nodes
// write the same.
func (m *merger) depose() {
	tokens := m.ring.tokens
	for i, outer := range tokens {
		if reign(outer.Version) == 0 {
			continue
		}
		for j := i + 1; j < len(tokens) && tokens[j].Start < outer.End; j++ {
			inner := tokens[j]
			if reign(inner.Version) >= reign(outer.Version) {
				continue
			}
			kept := inner
			kept.Owner, kept.End = outer.Owner, min(inner.End, outer.End)
			kept.Version = first(reign(outer.Version))
			kept.Free = m.ring.capacity(kept.Span())
			tokens[j] = kept
			m.changed = append(m.changed, kept.Start)
			if inner.Owner == m.self {
				m.conflicts = append(m.conflicts, Conflict{Ours: inner, Theirs: outer, Kept: kept, Reclaimed: true})
			}
		}
	}
}
