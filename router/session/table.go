package session

import (
	"maps"
	"sync/atomic"
)

// table maps the indexes in datagrams for this node to sessions. Any goroutine may read it, without a lock. Only the
// Node changes it: it replaces the map by a changed copy, which happens a few times in two minutes for each peer.
type table struct {
	sessions atomic.Pointer[map[uint32]*Session]
}

func (t *table) init() { t.sessions.Store(&map[uint32]*Session{}) }

func (t *table) lookup(index uint32) *Session { return (*t.sessions.Load())[index] }

func (t *table) change(f func(map[uint32]*Session)) {
	next := maps.Clone(*t.sessions.Load())
	f(next)
	t.sessions.Store(&next)
}

func (t *table) add(s *Session) { t.change(func(m map[uint32]*Session) { m[s.local] = s }) }

// remove removes sessions from t; those that are nil are ignored.
func (t *table) remove(sessions ...*Session) {
	t.change(func(m map[uint32]*Session) {
		for _, s := range sessions {
			if s != nil {
				delete(m, s.local)
			}
		}
	})
}
