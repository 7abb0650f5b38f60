package store

import "math"

// deadline says when an entry may be reclaimed. The heap is ordered by the
// instant that was known when the entry was put in; an entry whose life was
// prolonged since is put back when it comes up, so that a hit costs no
// re-ordering.
type deadline struct {
	tick  uint32 // instant in units of tickLen, saturating
	entry uint32
}

// tickLen is 2^26 ns, about 67 ms: 32 bits of it last nine years.
const tickLen = 1 << 26

func tickOf(instant int64) uint32 {
	if instant > math.MaxUint32*tickLen { // rounding up could overflow
		return math.MaxUint32
	}
	return uint32((max(instant, 0) + tickLen - 1) / tickLen)
}

// setExpiry prolongs or shortens an entry's life.
func (sh *shard[S]) setExpiry(i uint32, instant int64) {
	e := sh.at(i)
	e.expires = instant
	if t := tickOf(instant); t < sh.expiry[e.pos].tick {
		sh.expiry[e.pos].tick = t
		sh.up(e.pos)
	}
}

func (sh *shard[S]) pushDeadline(i uint32) {
	e := sh.at(i)
	e.pos = uint32(len(sh.expiry))
	sh.expiry = append(sh.expiry, deadline{tickOf(e.expires), i})
	sh.up(e.pos)
}

func (sh *shard[S]) dropDeadline(pos uint32) {
	last := uint32(len(sh.expiry) - 1)
	if pos != last {
		sh.swap(pos, last)
	}
	sh.expiry = sh.expiry[:last]
	if pos != last {
		sh.down(pos)
		sh.up(pos)
	}
}

// reclaim removes entries that have expired, at most limit of them. One that a
// copy has still to be told of is left for later.
func (sh *shard[S]) reclaim(now int64, limit int) {
	for ; limit > 0 && len(sh.expiry) > 0; limit-- {
		top := sh.expiry[0]
		if int64(top.tick)*tickLen > now {
			return
		}
		e := sh.at(top.entry)
		switch {
		case e.expires > now:
			sh.postpone(tickOf(e.expires))
		case e.record != 0:
			sh.postpone(tickOf(now) + 1)
		default:
			sh.remove(top.entry)
		}
	}
}

// evictLook is how many entries are looked at when the next to expire is owed
// to a copy.
const evictLook = 64

// evict removes the entry that is soonest to expire, to the tick, and reports
// whether one went and was still live. Entries that a copy has still to be told
// of are passed over: then it is the soonest of some near the top of the heap,
// and where all of those are owed, none.
func (sh *shard[S]) evict(now int64) (gone, live bool) {
	for len(sh.expiry) > 0 {
		top := sh.expiry[0]
		e := sh.at(top.entry)
		if t := tickOf(e.expires); t > top.tick {
			sh.postpone(t)
			continue
		}
		if e.record != 0 {
			break
		}
		live = e.expires > now
		sh.remove(top.entry)
		return true, live
	}
	best, soonest := uint32(0), int64(0)
	for _, d := range sh.expiry[:min(evictLook, len(sh.expiry))] {
		if e := sh.at(d.entry); e.record == 0 && (best == 0 || e.expires < soonest) {
			best, soonest = d.entry, e.expires
		}
	}
	if best == 0 {
		return false, false
	}
	sh.remove(best)
	return true, soonest > now
}

func (sh *shard[S]) postpone(tick uint32) {
	sh.expiry[0].tick = tick
	sh.down(0)
}

func (sh *shard[S]) swap(a, b uint32) {
	h := sh.expiry
	h[a], h[b] = h[b], h[a]
	sh.at(h[a].entry).pos = a
	sh.at(h[b].entry).pos = b
}

func (sh *shard[S]) up(i uint32) {
	for i > 0 {
		parent := (i - 1) / 2
		if sh.expiry[parent].tick <= sh.expiry[i].tick {
			return
		}
		sh.swap(i, parent)
		i = parent
	}
}

func (sh *shard[S]) down(i uint32) {
	n := uint32(len(sh.expiry))
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < n; c++ {
			if sh.expiry[c].tick < sh.expiry[least].tick {
				least = c
			}
		}
		if least == i {
			return
		}
		sh.swap(i, least)
		i = least
	}
}
