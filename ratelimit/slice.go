package ratelimit

import (
	"math"
	"sync/atomic"
	"time"
)

// terms are the part of a policy that a slice or a remembered denial depends
// on: under any other it is not used.
type terms struct {
	rule     rule
	location *time.Location
}

func (t *terms) of(p *Policy) bool {
	r := &t.rule
	return r.limit == p.Limit && r.period == int64(p.Period) && r.burst == p.capacity() && r.version == p.version &&
		r.algorithm == p.Algorithm && r.align == p.Align && t.location == p.Location
}

// figures are what a holder said about a key, as of an instant on the
// borrower's clock that lies before the holder said it.
type figures struct {
	remaining, retry, whole, next int64
	asked                         int64
	reason                        string
}

func figuresOf(r *result, asked int64) figures {
	return figures{r.remaining, r.retry, r.whole, r.next, asked, r.reason()}
}

// fill makes d the decision that the figures say at now.
func (f *figures) fill(d *Decision, p *Policy, now int64) {
	d.Limit = p.Limit
	d.Remaining = f.remaining
	d.ResetAfter = time.Duration(max(f.whole-(now-f.asked), 0))
	d.NextAfter = time.Duration(max(f.next-(now-f.asked), 0))
	d.Policy = p.Name
	d.Degraded = false
	d.Reason = f.reason
}

// slice is permits that this member may hand out: they are spent at the holder.
// take and close may be called concurrently.
type slice struct {
	terms   *terms
	figures figures
	seq     uint64
	permits int64 // as many as were lent
	low     int64 // a new slice is asked for when so many are left
	end     int64 // borrower's clock, ns

	_    [64]byte // what every call writes, on a cache line of its own
	left atomic.Int64
	_    [64]byte
}

// spent is what left is set to when a slice is closed: no number of calls that
// are refused at once brings it back above zero.
const spent = math.MinInt64 / 2

// take hands out cost permits, if they are there at now. low says that it was
// this call that left few.
func (s *slice) take(now, cost int64) (left int64, low, ok bool) {
	if now >= s.end || s.left.Load() < cost {
		return 0, false, false
	}
	left = s.left.Add(-cost)
	if left < 0 {
		// Others were faster. What is added again was never handed out, or
		// belongs to a slice that is closed.
		s.left.Add(cost)
		return 0, false, false
	}
	return left, left <= s.low && left+cost > s.low, true
}

// close ends the slice and returns what was not handed out and never will be.
// It returns it once.
func (s *slice) close() (unused int64) { return max(s.left.Swap(spent), 0) }

// handedOut is how many permits the slice gave to callers so far.
func (s *slice) handedOut() int64 { return s.permits - max(s.left.Load(), 0) }
