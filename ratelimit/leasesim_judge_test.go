package ratelimit

import (
	"cmp"
	"slices"
	"time"
)

// judge goes through the log in the order of time.
func (w *leaseWorld) judge() {
	slices.SortFunc(w.log, func(x, y simEntry) int {
		return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(b2i(x.cost > 0), b2i(y.cost > 0)), cmp.Compare(x.serial, y.serial))
	})
	if w.policy.Algorithm == TokenBucket {
		w.judgeBucket()
		return
	}
	w.judgeWindows()
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// slack is what may be admitted beyond a limit: what holders that died owed
// their backups.
func (w *leaseWorld) slack(limit int64) int64 {
	if w.faults.synced {
		return 0
	}
	return int64(w.takes) * max(limit/100, 1)
}

// sameSim is how far a window's start may move when another member takes over.
const sameSim = 300 * simMs

func (w *leaseWorld) judgeWindows() {
	var cur, prev struct{ start, end, count int64 }
	gen, open := 0, false
	for _, e := range w.log {
		w.judged = e.at
		switch {
		case e.reset:
			gen++
			open = false
			prev.count = 0
		case e.cost == 0:
			if open && e.start-cur.start < sameSim {
				cur.end = e.end
				continue
			}
			prev = cur
			if !open || e.start-cur.end > sameSim || cur.end-e.start > sameSim {
				prev.count = 0
			}
			cur.start, cur.end, cur.count, open = e.start, e.end, 0, true
		default:
			if e.leased && e.gen != gen {
				w.fault("a permit lent before a reset was used after it")
			}
			if !open || e.at >= cur.end {
				if e.leased {
					w.fault("a lent permit was used %v after its window", time.Duration(e.at-cur.end))
				}
				continue
			}
			cur.count += e.cost
			used := cur.count
			if w.policy.Algorithm == SlidingWindow && !w.faults.changes && w.takes == 0 {
				left, _ := mul(prev.count, cur.end-e.at).div(cur.end-cur.start, MaxLimit)
				used += left
			}
			if used > e.limit+w.slack(e.limit) {
				w.fault("%d of %d used (leased: %v)", used, e.limit, e.leased)
			}
		}
	}
}

// judgeBucket fills a bucket with what was used, when it was used.
func (w *leaseWorld) judgeBucket() {
	var debt, last float64 // permits; ns
	gen := 0
	period := float64(w.policy.Period)
	for _, e := range w.log {
		w.judged = e.at
		if e.reset {
			gen++
			debt = 0
		}
		if e.cost == 0 {
			continue
		}
		if e.leased && e.gen != gen {
			w.fault("a permit lent before a reset was used after it")
		}
		debt = max(debt-(float64(e.at)-last)*float64(e.limit)/period, 0) + float64(e.cost)
		last = float64(e.at)
		burst := w.policy.capacity()
		if debt > float64(burst+w.slack(e.limit))+0.01 && !w.faults.changes {
			w.fault("%.2f of %d used (leased: %v)", debt, burst, e.leased)
		}
	}
}

// admitted is what was used since the last reset.
func (w *leaseWorld) admitted() (n int64) {
	for _, e := range w.log {
		if e.reset {
			n = 0
		}
		n += e.cost
	}
	return n
}
