package auth

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// NewMemory returns an empty Store in this process's memory. It is for tests, and for nodes whose keys may be lost
// with the process.
func NewMemory() *Memory {
	return &Memory{byID: map[string]*Key{}, byDigest: map[Digest]*Key{}}
}

// Memory is a Store in memory; NewMemory makes one.
type Memory struct {
	mu       sync.RWMutex // guards all below
	byID     map[string]*Key
	byDigest map[Digest]*Key
	// order has the keys by ID. IDs grow with time, so a new key's place is at the end, nearly always.
	order    []*Key
	records  []Record
	changes  []int // index in records of each revision, from 1 on
	revision uint64
}

var _ Store = (*Memory)(nil)

func byID(k *Key, id string) int { return cmp.Compare(k.ID, id) }

// Lookup implements Store.
func (m *Memory) Lookup(_ context.Context, d Digest) (Key, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if k := m.byDigest[d]; k != nil {
		return k.Clone(), nil
	}
	return Key{}, ErrNotFound
}

// Get implements Store.
func (m *Memory) Get(_ context.Context, id string) (Key, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if k := m.byID[id]; k != nil {
		return k.Clone(), nil
	}
	return Key{}, ErrNotFound
}

// List implements Store.
func (m *Memory) List(_ context.Context, q Query) ([]Key, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	i, found := slices.BinarySearchFunc(m.order, q.After, byID)
	if found {
		i++
	}
	var keys []Key
	for ; i < len(m.order) && len(keys) < q.Size(); i++ {
		if q.Project == "" || m.order[i].Project == q.Project {
			keys = append(keys, m.order[i].Clone())
		}
	}
	return keys, nil
}

// Create implements Store.
func (m *Memory) Create(_ context.Context, keys []Key, r Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids, digests := map[string]bool{}, map[Digest]bool{}
	for i := range keys {
		k := &keys[i]
		if ids[k.ID] || digests[k.Digest] || m.takenLocked(k) {
			return ErrExists
		}
		ids[k.ID], digests[k.Digest] = true, true
	}
	for i := range keys {
		m.addLocked(keys[i], r)
	}
	return nil
}

// Change implements Store.
func (m *Memory) Change(_ context.Context, id string, r Record, edit func(*Key) (*Key, error)) (Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.byID[id]
	if k == nil {
		return Key{}, ErrNotFound
	}
	edited := k.Clone()
	add, err := edit(&edited)
	if err != nil {
		return Key{}, err
	}
	if add != nil {
		if m.takenLocked(add) {
			return Key{}, ErrExists
		}
		m.addLocked(*add, Record{At: r.At, Action: ActionCreate, Actor: r.Actor, Detail: "replaces " + id})
	}
	edited.Revision = m.recordLocked(r, k)
	*k = edited.Clone()
	return edited, nil
}

// Delete implements Store.
func (m *Memory) Delete(_ context.Context, id string, r Record) (Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.byID[id]
	if k == nil {
		return Key{}, ErrNotFound
	}
	deleted := k.Clone()
	deleted.Revision = m.recordLocked(r, k)
	delete(m.byID, id)
	delete(m.byDigest, k.Digest)
	i, _ := slices.BinarySearchFunc(m.order, id, byID)
	m.order = slices.Delete(m.order, i, i+1)
	return deleted, nil
}

// Changes implements Store.
func (m *Memory) Changes(_ context.Context, after uint64, limit int) (Changes, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := Changes{Latest: m.revision, Since: min(after, m.revision)}
	c.Since = max(c.Since, c.Latest-min(c.Latest, uint64(max(limit, 0))))
	for revision := c.Since + 1; revision <= c.Latest; revision++ {
		c.Keys = append(c.Keys, ChangedKey{m.records[m.changes[revision-1]].Digest, revision})
	}
	return c, nil
}

// Touch implements Store.
func (m *Memory) Touch(_ context.Context, uses []Use) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range uses {
		if k := m.byID[u.ID]; k != nil && u.At.After(k.LastUsedAt) {
			k.LastUsedAt = u.At.UTC().Truncate(time.Microsecond)
		}
	}
	return nil
}

// History implements Store.
func (m *Memory) History(_ context.Context, id string, limit int) ([]Record, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var records []Record
	for i := len(m.records) - 1; i >= 0 && len(records) < limit; i-- {
		if m.records[i].KeyID == id {
			records = append(records, m.records[i])
		}
	}
	return records, nil
}

func (m *Memory) takenLocked(k *Key) bool { return m.byID[k.ID] != nil || m.byDigest[k.Digest] != nil }

func (m *Memory) addLocked(k Key, r Record) {
	k = k.Clone()
	r.KeyID, r.Digest, r.Revision = k.ID, k.Digest, 0
	m.records = append(m.records, r)
	m.byID[k.ID], m.byDigest[k.Digest] = &k, &k
	i, _ := slices.BinarySearchFunc(m.order, k.ID, byID)
	m.order = slices.Insert(m.order, i, &k)
}

// recordLocked writes the record of a change and returns its revision.
func (m *Memory) recordLocked(r Record, k *Key) uint64 {
	m.revision++
	r.KeyID, r.Digest, r.Revision = k.ID, k.Digest, m.revision
	m.changes = append(m.changes, len(m.records))
	m.records = append(m.records, r)
	return m.revision
}
