package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// num is a state for tests: a sum, how many changes it has seen, and an instant
// that must follow the holder's clock from one member to the next.
type num struct {
	Sum, Version int64
	Mark         int64 // an instant
}

// change is an operation on a num: it adds, deletes, or only looks.
type change struct {
	Add          int64
	Life         int64 // how long the entry lives from now on; 0: it is deleted
	Until        int64 // the same as an instant, where not 0
	Look         bool
	Version      int64 // of the state then; 0: one more
	Wait         bool
	Spent, Bound int64
}

type nums struct{}

func (nums) Apply(c Call, s num, op change) (num, num, Effect) {
	if op.Look {
		return s, s, Effect{}
	}
	e := Effect{Changed: true, Wait: op.Wait, Spent: op.Spent, Bound: op.Bound}
	s.Version++
	if op.Version != 0 {
		s.Version = op.Version
	}
	if op.Life == 0 && op.Until == 0 {
		s.Sum = 0
		return s, s, e
	}
	s.Sum += op.Add
	s.Mark = c.Now
	e.Expires = c.Now + op.Life
	if op.Until != 0 {
		e.Expires = op.Until
	}
	return s, s, e
}

func (nums) AppendState(b []byte, s num, now int64) []byte {
	b = binary.AppendVarint(b, s.Sum)
	b = binary.AppendVarint(b, s.Version)
	return binary.AppendVarint(b, s.Mark-now)
}

var errNum = errors.New("num is cut short")

func (nums) ParseState(b []byte, now int64) (num, error) {
	var v [3]int64
	for i := range v {
		n, w := binary.Varint(b)
		if w <= 0 {
			return num{}, errNum
		}
		v[i], b = n, b[w:]
	}
	if len(b) > 0 {
		return num{}, errNum
	}
	return num{v[0], v[1], v[2] + now}, nil
}

func (nums) AppendOp(b []byte, _ change) []byte  { return b }
func (nums) ParseOp([]byte) (change, error)      { return change{}, nil }
func (nums) AppendResult(b []byte, _ num) []byte { return b }
func (nums) ParseResult([]byte) (num, error)     { return num{}, nil }
func (nums) Merge(a, b num) num {
	if b.Sum > a.Sum {
		a.Sum = b.Sum
	}
	a.Version = max(a.Version, b.Version)
	return a
}

type numStore = Store[num, change, num, nums]

func newNums(maxEntries int, marks *Marks) *numStore {
	return New[num, change, num](nums{}, maxEntries, marks)
}

// keyTable are keys by slot, some 25 each.
var keyTable = sync.OnceValue(func() [][]string {
	table := make([][]string, Slots)
	for i := range 25 * Slots {
		key := "k" + strconv.Itoa(i)
		table[slotOf(key)] = append(table[slotOf(key)], key)
	}
	return table
})

// keysOf returns n keys of a slot, a few at most.
func keysOf(slot uint16, n int) []string { return slices.Clone(keyTable()[slot][:n]) }

// shardKeys returns n keys of a shard, a thousand at most.
func shardKeys(shard uint16, n int) []string {
	var keys []string
	for slot := shard; slot < Slots; slot += shardCount {
		keys = append(keys, keyTable()[slot]...)
	}
	return keys[:n]
}

func slotOf(key string) uint16 { return uint16(xxhash.Sum64String(key) % Slots) }

// do runs op on key under an open gate.
func (st *Store[S, O, R, M]) do(key string, now int64, op O) (R, Ticket) {
	r, t, ran := st.run(alwaysOpen, xxhash.Sum64String(key), []byte(key), Call{Now: now}, op)
	if ran == nil || ran.Epoch != 1 {
		panic("an open gate let nothing through")
	}
	return r, t
}

// run is Do by value.
func (st *Store[S, O, R, M]) run(gate *Gate, hash uint64, key []byte, c Call, op O) (r R, t Ticket, ran *Reign) {
	t, ran = st.Do(gate, hash, key, &c, &op, &r)
	return r, t, ran
}

var alwaysOpen = OpenGate()

func (st *Store[S, O, R, M]) peek(key string, now int64) (S, bool) {
	return st.Peek(xxhash.Sum64String(key), []byte(key), now)
}

// contents returns the live entries of a slot.
func (st *Store[S, O, R, M]) contents(slot uint16, now int64) map[string]S {
	all := map[string]S{}
	st.Range(now, func(s uint16) bool { return s == slot }, func(key string, s S) bool {
		all[key] = s
		return true
	})
	return all
}

// broken tells what is wrong with a shard's structure: its chains, its heap,
// its free entries, its records. Empty: nothing.
func (sh *shard[S]) broken(slotNumber func(i int) uint16) string {
	if sh.slots == nil {
		if sh.n != 0 || len(sh.expiry) != 0 {
			return "entries without an index"
		}
		return ""
	}
	seen := map[uint32]bool{}
	withRecord := 0
	for j := range sh.slots {
		x := &sh.slots[j]
		slot := slotNumber(j)
		n := 0
		for b := range x.buckets {
			for i := x.buckets[b]; i != 0; i = sh.at(i).next {
				e := sh.at(i)
				switch {
				case seen[i]:
					return "an entry is in two chains"
				case slotOf(e.key.String()) != slot || uint32(xxhash.Sum64String(e.key.String())) != e.hash:
					return "an entry is in another slot's chain"
				case x.bucket(e.hash) != &x.buckets[b]:
					return "an entry is in the wrong chain"
				case sh.expiry[e.pos].entry != i:
					return "an entry does not find its deadline"
				}
				seen[i] = true
				n++
				if e.record == 0 {
					continue
				}
				withRecord++
				if why := sh.badRecord(x.out, i); why != "" {
					return why
				}
			}
		}
		if n != x.n {
			return fmt.Sprintf("slot %d counts %d entries and has %d", slot, x.n, n)
		}
	}
	if len(seen) != sh.n || len(sh.expiry) != sh.n {
		return fmt.Sprintf("%d entries, %d counted, %d deadlines", len(seen), sh.n, len(sh.expiry))
	}
	for i := range sh.expiry {
		if i > 0 && sh.expiry[(i-1)/2].tick > sh.expiry[i].tick {
			return "the heap is out of order"
		}
	}
	free := 0
	for i := sh.freed; i != 0; i = sh.at(i).next {
		if seen[i] {
			return "a free entry is in use"
		}
		seen[i] = true
		free++
	}
	if free+sh.n != int(sh.used) {
		return fmt.Sprintf("%d entries handed out, %d in use, %d free", sh.used, sh.n, free)
	}
	freeRecords := 0
	for r := sh.freeRec; r != 0; r = sh.records[r].entry {
		freeRecords++
	}
	if withRecord != int(sh.recorded) {
		return fmt.Sprintf("%d records in use, %d counted", withRecord, sh.recorded)
	}
	if want := max(len(sh.records)-1, 0); withRecord+freeRecords != want {
		return fmt.Sprintf("%d records, %d in use, %d free", want, withRecord, freeRecords)
	}
	return ""
}

// badRecord tells what is wrong with entry i's record.
func (sh *shard[S]) badRecord(out *outbox, i uint32) string {
	rec := &sh.records[sh.at(i).record]
	if rec.entry != i {
		return "a record is another entry's"
	}
	if out == nil {
		return "a record although nobody follows"
	}
	outstanding := false
	for l := range out.lists {
		queued, flying := 0, 0
		for _, q := range out.lists[l].queue {
			if q == i {
				queued++
			}
		}
		for _, q := range out.lists[l].inflight {
			if q == i {
				flying++
			}
		}
		if queued > 1 || flying > 1 || rec.queued[l] != (queued == 1) || rec.flying[l] != (flying == 1) {
			return fmt.Sprintf("list %d: queued %v %d times, flying %v %d times", l, rec.queued[l], queued, rec.flying[l], flying)
		}
		outstanding = outstanding || queued+flying > 0
	}
	if !outstanding {
		return "a record of which nothing is outstanding: the entry can never be reclaimed"
	}
	return ""
}

// check fails the test where the structure is wrong.
func (st *Store[S, O, R, M]) check(t interface {
	Helper()
	Fatalf(string, ...any)
}) {
	t.Helper()
	for i := range st.shards {
		if why := st.shards[i].broken(func(j int) uint16 { return uint16(j*shardCount + i) }); why != "" {
			t.Fatalf("shard %d: %s", i, why)
		}
	}
}
