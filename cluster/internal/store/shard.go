package store

import (
	"encoding/binary"
	"sync"
	"unsafe"
)

// shard is the entries of shardSlots slots and the lock that guards them.
type shard[S any] struct {
	mu      sync.Mutex
	slots   *[shardSlots]slotIndex // nil until the first entry
	chunks  []*[chunkLen]entry[S]
	freed   uint32 // head of the list of free entries, linked by next
	used    uint32 // entries handed out so far, free ones among them
	n       int    // live entries
	expiry  []deadline
	records []record // of entries that a copy has to be told of
	freeRec uint32
	// recorded is how many entries have one.
	recorded uint32
	followed [2]uint64 // which slots each list follows, a bit each
	_        [64]byte  // the next shard's lock on a cache line of its own
}

// slotIndex finds a slot's entries: chained hashing over the shard's entries.
type slotIndex struct {
	buckets []uint32
	n       int
	out     *outbox
}

// entry is one key's state. Its number in the shard counts from 1; 0 is none.
type entry[S any] struct {
	key     text
	expires int64
	hash    uint32 // low half of the key's hash: slot and bucket
	next    uint32
	pos     uint32 // in shard.expiry
	record  uint32 // in shard.records; 0: nothing outstanding
	state   S
}

// text is a key, with its length before it: a word in each entry, where a string
// takes two. It is never changed.
type text struct{ at *byte }

const textHead = 2

func newText(key []byte) text {
	b := binary.LittleEndian.AppendUint16(make([]byte, 0, textHead+len(key)), uint16(len(key)))
	return text{unsafe.SliceData(append(b, key...))}
}

func (t text) String() string {
	if t.at == nil {
		return "" // of a free entry
	}
	n := binary.LittleEndian.Uint16(unsafe.Slice(t.at, textHead))
	return unsafe.String((*byte)(unsafe.Add(unsafe.Pointer(t.at), textHead)), int(n))
}

func (sh *shard[S]) at(i uint32) *entry[S] {
	i--
	return &sh.chunks[i/chunkLen][i%chunkLen]
}

func (sh *shard[S]) entriesIn(slot uint16) int {
	if sh.slots == nil {
		return 0
	}
	return sh.slots[slot/shardCount].n
}

func (sh *shard[S]) index(slot uint16) *slotIndex {
	if sh.slots == nil {
		sh.slots = new([shardSlots]slotIndex)
	}
	return &sh.slots[slot/shardCount]
}

func (x *slotIndex) bucket(hash uint32) *uint32 {
	return &x.buckets[(hash>>14)&uint32(len(x.buckets)-1)]
}

func (sh *shard[S]) find(slot uint16, hash uint32, key []byte) uint32 {
	if sh.slots == nil {
		return 0
	}
	x := &sh.slots[slot/shardCount]
	if x.n == 0 {
		return 0
	}
	for i := *x.bucket(hash); i != 0; {
		e := sh.at(i)
		if e.hash == hash && e.key.String() == string(key) {
			return i
		}
		i = e.next
	}
	return 0
}

// insert adds an entry that is not there yet, with the zero state.
func (sh *shard[S]) insert(slot uint16, hash uint32, key []byte, expires int64) uint32 {
	x := sh.index(slot)
	if x.n >= len(x.buckets) {
		sh.grow(x)
	}
	i := sh.freed
	if i != 0 {
		sh.freed = sh.at(i).next
	} else {
		sh.used++
		i = sh.used
		if int(i-1)/chunkLen == len(sh.chunks) {
			sh.chunks = append(sh.chunks, new([chunkLen]entry[S]))
		}
	}
	e := sh.at(i)
	head := x.bucket(hash)
	*e = entry[S]{key: newText(key), hash: hash, next: *head, expires: expires}
	*head = i
	x.n++
	sh.n++
	sh.pushDeadline(i)
	return i
}

func (sh *shard[S]) grow(x *slotIndex) {
	old := x.buckets
	x.buckets = make([]uint32, max(4, 2*len(old)))
	for _, i := range old {
		for i != 0 {
			e := sh.at(i)
			next := e.next
			head := x.bucket(e.hash)
			e.next, *head = *head, i
			i = next
		}
	}
}

// remove takes an entry out altogether. It must have no record.
func (sh *shard[S]) remove(i uint32) {
	e := sh.at(i)
	x := sh.index(uint16(e.hash % Slots))
	p := x.bucket(e.hash)
	for *p != i {
		p = &sh.at(*p).next
	}
	*p = e.next
	x.n--
	sh.n--
	if x.n == 0 {
		x.buckets = nil
	}
	sh.dropDeadline(e.pos)
	*e = entry[S]{next: sh.freed}
	sh.freed = i
}

func (sh *shard[S]) eachIn(slot uint16, f func(i uint32, e *entry[S])) {
	if sh.slots == nil {
		return
	}
	for _, i := range sh.slots[slot/shardCount].buckets {
		for i != 0 {
			e := sh.at(i)
			next := e.next // f may remove e
			f(i, e)
			i = next
		}
	}
}
