package kv

import (
	"encoding/binary"
	"errors"
	"io"
	"log"
	"math"
	"sync"
	"sync/atomic"

	"github.com/olric-data/olric/pkg/storage"
)

// engine is olric's storage engine: the root of which olric forks one for each
// partition it owns or backs up. It outlives the olric that fills it, so that
// what it holds can be handed over after olric was stopped.
type engine struct {
	clock    *clock
	maxBytes int64

	bytes       atomic.Int64
	count       atomic.Int64 // of shards
	evictedLive atomic.Uint64

	// owned and backups are the shards of partitions that olric was seen to use
	// as their owner, or as their backup. It never makes others for them.
	owned, backups [partitionCount]atomic.Pointer[shard]
	// used counts the shards that have had entries of a partition.
	used [partitionCount]atomic.Int64

	mu     sync.Mutex // guards shards
	shards map[*shard]struct{}
}

func newEngine(c *clock, maxBytes int64) *engine {
	return &engine{clock: c, maxBytes: maxBytes, shards: make(map[*shard]struct{})}
}

func (g *engine) newShard() *shard {
	s := &shard{engine: g, m: make(map[uint64]envelope), part: -1}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shards[s] = struct{}{}
	g.count.Add(1)
	return s
}

func (g *engine) drop(s *shard) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.shards[s]; !ok {
		return
	}
	delete(g.shards, s)
	for i := range partitionCount {
		g.owned[i].CompareAndSwap(s, nil)
		g.backups[i].CompareAndSwap(s, nil)
	}
	g.count.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grow(-s.bytes)
	clear(s.m)
	s.moved = nil
	if s.part >= 0 {
		g.used[s.part].Add(-1)
		s.part = -1
	}
}

// all returns the shards as they are now.
func (g *engine) all() []*shard {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*shard, 0, len(g.shards))
	for s := range g.shards {
		all = append(all, s)
	}
	return all
}

// each calls f with every entry that has not expired, a key once, tombstones
// too. f must not call the engine.
func (g *engine) each(f func(hkey uint64, e envelope)) {
	latest := make(map[uint64]envelope)
	for _, s := range g.all() {
		s.each(func(hkey uint64, e envelope) {
			if cur, ok := latest[hkey]; !ok || cur.version() < e.version() {
				latest[hkey] = e
			}
		})
	}
	for hkey, e := range latest {
		f(hkey, e)
	}
}

// entries counts what is held, both copies where this member has them.
func (g *engine) entries() int {
	n := 0
	for _, s := range g.all() {
		n += s.len()
	}
	return n
}

// fork is a shard as olric sees it: storage.Engine. Olric holds its own lock
// around each call and, for a write, from the check of conditions to the end of
// the replication.
type fork struct {
	root  *engine
	shard *shard // nil for the root
}

var _ storage.Engine = (*fork)(nil)

var errRoot = errors.New("kv: the root engine stores nothing")

func (f *fork) Name() string                { return "peerlimit" }
func (f *fork) SetConfig(*storage.Config)   {}
func (f *fork) SetLogger(*log.Logger)       {}
func (f *fork) Start() error                { return nil }
func (f *fork) Compaction() (bool, error)   { return true, nil }
func (f *fork) RangeHKey(func(uint64) bool) {} // olric's own expiry finds nothing to do

func (f *fork) Fork(*storage.Config) (storage.Engine, error) {
	return &fork{root: f.root, shard: f.root.newShard()}, nil
}

// NewEntry is called on a shard by the owner of its partition only.
func (f *fork) NewEntry() storage.Entry { return &entry{shard: f.shard, owner: f.shard != nil} }

// PutRaw stores what the owner of the key sent to its backup.
func (f *fork) PutRaw(hkey uint64, raw []byte) error {
	if f.shard == nil {
		return errRoot
	}
	e, err := parseEnvelope(raw)
	if err != nil || e.mode() != modeStored {
		return errEnvelope
	}
	if b := &f.root.backups[hkey%partitionCount]; b.Load() == nil {
		b.Store(f.shard)
	}
	f.shard.put(hkey, e.stored(e.version()))
	return nil
}

// Put stores an entry on its owner, or merges one that was moved here.
func (f *fork) Put(hkey uint64, se storage.Entry) error {
	if f.shard == nil {
		return errRoot
	}
	e, ok := se.(*entry)
	if !ok {
		return errEnvelope
	}
	decided, err := e.decide(hkey)
	if err != nil {
		return err
	}
	if o := &f.root.owned[hkey%partitionCount]; e.owner && o.Load() == nil {
		o.Store(f.shard)
	}
	f.shard.put(hkey, decided)
	return nil
}

func (f *fork) Get(hkey uint64) (storage.Entry, error) {
	if f.shard != nil {
		if e := f.shard.get(hkey); e != nil {
			return &entry{raw: e, decided: e}, nil
		}
	}
	return nil, storage.ErrKeyNotFound
}

func (f *fork) GetRaw(hkey uint64) ([]byte, error) {
	if f.shard != nil {
		if e := f.shard.get(hkey); e != nil {
			return e, nil
		}
	}
	return nil, storage.ErrKeyNotFound
}

// GetTTL is asked by olric for the condition NX, which we put on every write
// that must not touch a counter's key: only a counter's mark counts as there.
// (The condition "only if absent" is an envelope's mode.)
func (f *fork) GetTTL(hkey uint64) (int64, error) {
	if f.shard != nil {
		if e := f.shard.get(hkey); e != nil && e.kind() == KindCounter {
			return math.MaxInt64, nil
		}
	}
	return 0, storage.ErrKeyNotFound
}

func (f *fork) GetLastAccess(uint64) (int64, error) { return 0, storage.ErrKeyNotFound }

func (f *fork) GetKey(hkey uint64) (string, error) {
	e, err := f.GetRaw(hkey)
	if err != nil {
		return "", err
	}
	return digest(string(envelope(e).key())), nil
}

// Delete isn't used by us: a delete is a tombstone. Olric calls it for the
// keys that a stranger deletes by name.
func (f *fork) Delete(hkey uint64) error {
	if f.shard != nil {
		f.shard.mu.Lock()
		defer f.shard.mu.Unlock()
		f.shard.removeLocked(hkey)
	}
	return nil
}

func (f *fork) UpdateTTL(uint64, storage.Entry) error { return storage.ErrNotImplemented }

func (f *fork) Check(hkey uint64) bool { return f.shard != nil && f.shard.get(hkey) != nil }

func (f *fork) Stats() storage.Stats {
	if f.shard == nil {
		return storage.Stats{}
	}
	f.shard.mu.RLock()
	defer f.shard.mu.RUnlock()
	return storage.Stats{
		Allocated: int(f.shard.bytes),
		Inuse:     int(f.shard.bytes),
		Length:    len(f.shard.m),
		NumTables: 1,
	}
}

func (f *fork) Range(g func(uint64, storage.Entry) bool) {}

func (f *fork) Scan(uint64, int, func(storage.Entry) bool) (uint64, error) {
	return 0, storage.ErrNotImplemented
}

func (f *fork) ScanRegexMatch(uint64, string, int, func(storage.Entry) bool) (uint64, error) {
	return 0, storage.ErrNotImplemented
}

func (f *fork) Close() error { return nil }

func (f *fork) Destroy() error {
	if f.shard != nil {
		f.root.drop(f.shard)
	}
	return nil
}

// moveBytes is about how much of a partition is moved to another member in one
// message. A message must get there within olric's read timeout.
const moveBytes = 1 << 20

// TransferIterator gives a partition away in pieces: Export takes some entries,
// Drop removes those once they have arrived.
func (f *fork) TransferIterator() storage.TransferIterator { return &transfer{shard: f.shard} }

type transfer struct {
	shard *shard
	sent  map[uint64]int64 // hash to version
}

func (t *transfer) Next() bool {
	if t.shard == nil {
		return false
	}
	t.shard.reap()
	return t.shard.len() > 0
}

func (t *transfer) Export() ([]byte, int, error) {
	t.sent = make(map[uint64]int64)
	var b []byte
	t.shard.mu.RLock()
	defer t.shard.mu.RUnlock()
	for hkey, e := range t.shard.m {
		if len(b) > 0 && len(b)+len(e) > moveBytes {
			break
		}
		b = binary.BigEndian.AppendUint64(b, hkey)
		b = binary.BigEndian.AppendUint32(b, uint32(len(e)))
		b = append(b, e...)
		t.sent[hkey] = e.version()
	}
	if len(b) == 0 {
		return nil, 0, io.EOF
	}
	return b, 0, nil
}

func (t *transfer) Drop(int) error {
	t.shard.drop(t.sent)
	return nil
}

// Import reads what Export wrote.
func (f *fork) Import(data []byte, g func(uint64, storage.Entry) error) error {
	for len(data) > 0 {
		if len(data) < 12 {
			return errEnvelope
		}
		hkey, n := binary.BigEndian.Uint64(data), int(binary.BigEndian.Uint32(data[8:]))
		if data = data[12:]; n > len(data) {
			return errEnvelope
		}
		e, err := parseEnvelope(data[:n])
		if err != nil || e.mode() != modeStored {
			return errEnvelope
		}
		data = data[n:]
		if err := g(hkey, &entry{raw: e, shard: f.shard}); err != nil {
			return err
		}
	}
	return nil
}
