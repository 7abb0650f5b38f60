package ratelimit

import (
	"sync/atomic"
	"time"
)

// denialFor bounds how long a denial is remembered, ns: it may be out of date
// where permits came back in other ways than by waiting.
const denialFor = int64(250 * time.Millisecond)

// denialShortest is what a denial must last to be worth remembering, ns.
const denialShortest = int64(time.Millisecond)

// denial is what a holder said of one key and cost.
type denial struct {
	hash    uint64
	key     string
	terms   terms
	cost    int64
	until   int64 // borrower's clock, ns
	figures figures
}

// denials are those that this member remembers, 32,768 at most: where one is
// remembered that falls into a full set, another is forgotten. Its methods may
// be called concurrently.
type denials struct {
	sets [denialSets][denialWays]atomic.Pointer[denial]
}

const (
	denialSets = 8192
	denialWays = 4
)

// find returns the denial of that cost, nil if none is remembered or it is over.
func (t *denials) find(hash uint64, key []byte, cost, now int64) *denial {
	set := &t.sets[hash%denialSets]
	for i := range set {
		d := set[i].Load()
		if d != nil && d.hash == hash && d.cost == cost && now < d.until && d.key == string(key) {
			return d
		}
	}
	return nil
}

// put remembers d in the place of an older one.
func (t *denials) put(d *denial, now int64) {
	set := &t.sets[d.hash%denialSets]
	place := int(d.hash>>32) % denialWays
	for i := range set {
		old := set[i].Load()
		if old != nil && old.hash == d.hash && old.cost == d.cost {
			place = i
			break
		}
		if old == nil || now >= old.until {
			place = i
		}
	}
	set[place].Store(d)
}

// forget drops what is remembered of a key.
func (t *denials) forget(hash uint64) {
	set := &t.sets[hash%denialSets]
	for i := range set {
		if d := set[i].Load(); d != nil && d.hash == hash {
			set[i].CompareAndSwap(d, nil)
		}
	}
}

func (t *denials) forgetAll() {
	for i := range t.sets {
		for j := range t.sets[i] {
			t.sets[i][j].Store(nil)
		}
	}
}
