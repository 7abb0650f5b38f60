package store

import (
	"encoding/binary"
	"math"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
)

// quad is a state of 32 bytes.
type quad struct{ A, B, C, D int64 }

type quads struct{}

func (quads) Apply(c Call, s quad, add int64) (quad, int64, Effect) {
	s.A += add
	return s, s.A, Effect{Changed: true, Spent: add, Bound: math.MaxInt64, Expires: c.Now + int64(time.Hour)}
}
func (quads) AppendState(b []byte, s quad, _ int64) []byte { return binary.AppendVarint(b, s.A) }
func (quads) ParseState(b []byte, _ int64) (quad, error) {
	n, _ := binary.Varint(b)
	return quad{A: n}, nil
}
func (quads) AppendOp(b []byte, _ int64) []byte       { return b }
func (quads) ParseOp([]byte) (op int64, err error)    { return op, nil }
func (quads) AppendResult(b []byte, _ int64) []byte   { return b }
func (quads) ParseResult([]byte) (r int64, err error) { return r, nil }
func (quads) Merge(a, _ quad) quad                    { return a }

func TestHitAllocatesNothing(t *testing.T) {
	for name, prepare := range map[string]func(st *Store[quad, int64, int64, quads], slot uint16){
		"alone":         func(*Store[quad, int64, int64, quads], uint16) {},
		"with a backup": func(st *Store[quad, int64, int64, quads], slot uint16) { st.Follow(slot, Backup, false) },
	} {
		st := New[quad, int64, int64](quads{}, 1000, new(Marks))
		key := []byte("account:100042")
		hash := xxhash.Sum64(key)
		prepare(st, uint16(hash%Slots))
		st.run(alwaysOpen, hash, key, Call{Now: 1}, 1)
		if n := testing.AllocsPerRun(1000, func() { st.run(alwaysOpen, hash, key, Call{Now: 1}, 1) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// fill puts n entries of 14-byte keys into a store and returns what it takes
// beyond the keys' bytes, for each.
func fill(n int, followed bool) (st *Store[quad, int64, int64, quads], perEntry float64) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	marks := new(Marks)
	st = New[quad, int64, int64](quads{}, 4_000_000, marks)
	if followed {
		for slot := range uint16(Slots) {
			st.Follow(slot, Backup, true)
		}
	}
	key := make([]byte, 0, 32)
	for i := range n {
		key = strconv.AppendInt(append(key[:0], "account:"...), int64(100_000_000+i)%1_000_000, 10)
		for len(key) < 14 {
			key = append(key, '.')
		}
		key[8] ^= byte(i/1_000_000) + 0x40
		st.run(alwaysOpen, xxhash.Sum64(key), key, Call{Now: int64(i) * 1000}, 1)
	}
	if followed {
		for slot := range uint16(Slots) {
			st.Collect(slot, Backup, 1, nil, math.MaxInt)
			st.Acked(slot, Backup)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	return st, (float64(after.HeapAlloc) - float64(before.HeapAlloc) - float64(14*n)) / float64(n)
}

// An entry costs at most 100 bytes beyond its key. The whole of a store's fixed
// cost is counted in.
func TestMemoryOfAnEntry(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a table")
	}
	const n = 300_000
	st, perEntry := fill(n, false)
	if got := st.Len(1, nil); got != n {
		t.Fatalf("%d entries, want %d", got, n)
	}
	t.Logf("%.1f bytes an entry beyond its key", perEntry)
	if perEntry > 100 {
		t.Errorf("%.1f bytes an entry beyond its key, want 100 at most", perEntry)
	}
	runtime.KeepAlive(st)
}

// BenchmarkMemory reports what one of 1,000,000 entries with a state of 32
// bytes takes beyond its key.
func BenchmarkMemory(b *testing.B) {
	for name, followed := range map[string]bool{"alone": false, "copied": true} {
		b.Run(name, func(b *testing.B) {
			var perEntry float64
			for b.Loop() {
				var st *Store[quad, int64, int64, quads]
				st, perEntry = fill(1_000_000, followed)
				runtime.KeepAlive(st)
			}
			b.ReportMetric(perEntry, "bytes/entry")
		})
	}
}

func BenchmarkDo(b *testing.B) {
	st, _ := fill(100_000, false)
	key := []byte("account:100042")
	hash := xxhash.Sum64(key)
	b.ReportAllocs()
	for b.Loop() {
		st.run(alwaysOpen, hash, key, Call{Now: 1}, 1)
	}
}
