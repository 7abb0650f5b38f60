package ratelimit

import (
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// machine is the state machine of a limiter's table.
type machine struct {
	// clustered: other members may have older states of a key that was reset.
	clustered bool
}

// Gone tells the table which entries only remember that there is nothing: they
// are not counted or listed.
func (machine) Gone(s state) bool { return s.kind == kindGone }

// goneFor bounds how long a reset is remembered, so that the older state of a
// member that was cut off can't come back.
const goneFor = 10 * time.Minute

// Apply is ApplyTo by value; see [cluster.Machine].
func (mc machine) Apply(c cluster.Call, old state, o op) (s state, res result, e cluster.Effect) {
	s = old
	e = mc.ApplyTo(&c, &s, &o, &res)
	return s, res, e
}

// ApplyTo runs one operation in place; see [cluster.InPlace].
func (mc machine) ApplyTo(c *cluster.Call, s *state, o *op, res *result) (e cluster.Effect) {
	m := moment{now: c.Now, wall: c.Now + c.WallOffset}
	if c.Unprotected {
		res.flags = resultUnprotected
	}
	r := &o.rule
	if s.extra != nil && s.extra.lent != nil {
		lapse(s, m)
		if l := s.extra.lentOrNil(); l != nil && len(l.out) > 0 {
			switch way := beside(l, o); way {
			case waitForSlices:
				if !l.usable(m.now) { // none is out that could be used any more
					lapseWhere(s, m, func(lease) bool { return true })
					break
				}
				if o.kind == opLease {
					return e // its borrower asks again
				}
				return notRun(s, res, m)
			case byTheirRule:
				r = &l.rule
			}
		}
	}
	if o.kind == opReturn && s.extra.lentOrNil().find(o.id, o.seq) < 0 {
		return e
	}
	if s.kind == kindNone || s.kind == kindGone {
		res.flags |= resultFresh
		if o.flags&flagKnown != 0 {
			res.flags |= resultUnknown
			return e
		}
	}
	if o.kind == opReset {
		return mc.applyReset(s, res, m)
	}
	settle(s, r, m)
	s.version = r.version
	aside, asideUntil := held(s, m)
	avail := max(free(s, r, m)-aside, 0)

	var spent int64 // what a backup that does not know of it would grant again
	changed := false
	switch o.kind {
	case opTake:
		if o.cost <= avail {
			res.flags |= resultAllowed
			spent, avail = o.cost, avail-o.cost
			charge(s, r, m, o.cost)
			changed = o.cost > 0
		}
	case opAtMost:
		if o.cost = min(o.cost, avail); o.cost > 0 {
			res.flags |= resultAllowed
			spent, avail = o.cost, avail-o.cost
			charge(s, r, m, o.cost)
			changed = true
		}
	case opStatus:
		if o.cost <= avail {
			res.flags |= resultAllowed
		}
	case opRefund:
		// Sent again it may have run before, and giving back twice would
		// grant too many.
		if !c.Again {
			giveBack(s, r, m, o.cost)
			avail = max(free(s, r, m)-aside, 0)
			changed = true
		}
		res.flags |= resultAllowed
	case opLease:
		if res.lasts, changed = leaseGrant(s, r, m, o, avail); changed {
			res.flags |= resultAllowed | resultLent
			aside, asideUntil = held(s, m)
			avail = max(free(s, r, m)-aside, 0)
		}
	case opReturn:
		if changed = leaseBack(s, r, m, o); changed {
			res.flags |= resultAllowed
			aside, asideUntil = held(s, m)
			avail = max(free(s, r, m)-aside, 0)
		}
	default:
		var permits int64
		permits, changed = applyNamed(s, r, m, o, avail, c.Again)
		if changed {
			res.flags |= resultAllowed
			aside, asideUntil = held(s, m)
			avail = max(free(s, r, m)-aside, 0)
		}
		if o.kind == opConfirm || o.kind == opAcquire {
			spent = permits
		}
	}

	res.remaining = avail
	if changed {
		res.granted = o.cost
	}
	res.whole = wholeWithLent(s, m)
	if !res.flags.allowed() && o.cost > avail {
		res.retry = retryAfter(s, r, m, o.cost, aside, asideUntil)
		if _, kept := s.extra.lentOrNil().last(); aside > 0 || kept > m.now {
			res.flags |= resultSoon
		}
		if o.spends() {
			if res.out, changed = recall(s, m, quietAfterDenial); res.out != nil {
				res.flags |= resultOut
			}
		}
	}
	if avail < r.burst {
		res.next = retryAfter(s, r, m, avail+1, aside, asideUntil)
	}
	if !changed {
		return e
	}
	e = cluster.Effect{Changed: true, Wait: o.flags&flagWait != 0 || o.kind == opLease, Expires: expiry(s, m, res.whole)}
	if spent > 0 {
		e.Spent, e.Bound = spent, max(r.limit/100, 1)
	}
	return e
}

// expiry is when an entry may be forgotten of which all has come back after
// whole.
func expiry(s *state, m moment, whole int64) (at int64) {
	if whole > 0 {
		at = m.now + whole
	}
	if s.extra != nil {
		_, kept := s.extra.lent.last()
		at = max(at, lastReserved(s), kept)
	}
	return at
}

// How an operation goes on while slices are out.
type way uint8

const (
	byOwnRule     way = iota
	byTheirRule       // as if its caller had brought the rule that they were granted under
	waitForSlices     // not before they are home
)

// beside says how o goes on beside slices. A reset and another rule's spending
// wait for them: slices end with a window, and a window ends where the rule says.
// What gives back or spends what was set aside before can't wait, and is judged
// by the rule that is in force.
func beside(l *lent, o *op) way {
	switch o.kind {
	case opReset:
		return waitForSlices
	case opStatus:
		return byOwnRule // changes nothing
	case opRefund, opConfirm, opRelease, opRenew, opLeave, opReturn:
		return byTheirRule
	}
	if l.rule.same(&o.rule) {
		return byOwnRule
	}
	return waitForSlices
}

// notRun answers an operation that has to wait for slices.
func notRun(s *state, res *result, m moment) (e cluster.Effect) {
	res.flags |= resultNotRun | resultOut | resultSoon
	if res.out, e.Changed = recall(s, m, quietBeforeChange); e.Changed {
		e.Expires = expiry(s, m, wholeWithLent(s, m))
	}
	return e
}

// spends reports whether an operation is one that takes permits for a caller.
func (o *op) spends() bool {
	return o.kind == opTake || o.kind == opAtMost || o.kind == opReserve
}

// retryAfter is how long it takes until n permits can be had, those set aside
// taken to be spent or free again when they run out.
func retryAfter(s *state, r *rule, m moment, n, aside, asideUntil int64) int64 {
	t := wait(s, r, m, min(n, r.burst))
	if aside > 0 {
		t = max(t, asideUntil-m.now)
	}
	return t
}

// applyNamed runs the operations that carry an ID. Sent again, they act once.
// done says whether what was asked is now so.
func applyNamed(s *state, r *rule, m moment, o *op, avail int64, again bool) (permits int64, done bool) {
	switch o.kind {
	case opReserve:
		if reservationFind(s, o.id) >= 0 {
			return 0, true
		}
		if o.cost > avail {
			return 0, false
		}
		reservationAdd(s, reservation{o.id, o.cost, m.now + int64(reserveFor)})
		return o.cost, true
	case opConfirm:
		i := reservationFind(s, o.id)
		if i < 0 {
			// Sent again: a reservation reached two members before it was
			// answered, and is confirmed well before it runs out. So if it is
			// gone the earlier sending has charged it.
			return 0, again
		}
		permits = s.extra.reserved[i].permits
		reservationDrop(s, i)
		charge(s, r, m, permits)
		return permits, true
	case opRelease:
		i := reservationFind(s, o.id)
		if i < 0 {
			return 0, false
		}
		reservationDrop(s, i)
		return 0, true
	}
	if s.kind != kindInFlight {
		return 0, false
	}
	i := placeFind(s, o.id)
	switch {
	case o.kind == opAcquire && i >= 0:
		return 0, true
	case o.kind == opAcquire && o.cost <= avail:
		placeTake(s, place{o.id, o.cost, m.now + r.period})
		return o.cost, true
	case o.kind == opRenew && i >= 0:
		placeRenew(s, i, m.now+r.period)
		return 0, true
	case o.kind == opLeave && i >= 0:
		placeFree(s, i)
		return 0, true
	}
	return 0, false
}

// applyReset forgets what was used. In a cluster the reset itself is kept for
// as long as what it forgot would have been.
func (mc machine) applyReset(s *state, res *result, m moment) cluster.Effect {
	if s.kind == kindNone || s.kind == kindGone {
		return cluster.Effect{}
	}
	res.flags |= resultAllowed
	remembered := min(max(whole(s, m), lastReserved(s)-m.now), int64(goneFor))
	if !mc.clustered || remembered <= 0 {
		*s = state{}
		return cluster.Effect{Changed: true, Wait: mc.clustered}
	}
	*s = state{kind: kindGone, reset: s.reset + 1, version: s.version}
	return cluster.Effect{Changed: true, Wait: true, Expires: m.now + remembered}
}
