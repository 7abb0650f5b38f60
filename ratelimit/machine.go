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

// Apply runs one operation; see [cluster.Machine].
func (mc machine) Apply(c cluster.Call, s state, o op) (state, result, cluster.Effect) {
	m := moment{now: c.Now, wall: c.Now + c.WallOffset}
	var res result
	if s.kind == kindNone || s.kind == kindGone {
		res.flags = resultFresh
		if o.flags&flagKnown != 0 {
			res.flags |= resultUnknown
			return s, res, cluster.Effect{}
		}
	}
	if o.kind == opReset {
		return mc.applyReset(s, res, m)
	}
	r := &o.rule
	settle(&s, r, m)
	s.version = r.version
	aside, asideUntil := held(&s, m)
	avail := max(free(&s, r, m)-aside, 0)

	var spent int64 // what a backup that does not know of it would grant again
	changed := false
	switch o.kind {
	case opTake:
		if o.cost <= avail {
			res.flags |= resultAllowed
			spent, avail = o.cost, avail-o.cost
			charge(&s, r, m, o.cost)
			changed = o.cost > 0
		}
	case opAtMost:
		if o.cost = min(o.cost, avail); o.cost > 0 {
			res.flags |= resultAllowed
			spent, avail = o.cost, avail-o.cost
			charge(&s, r, m, o.cost)
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
			giveBack(&s, r, m, o.cost)
			avail = max(free(&s, r, m)-aside, 0)
			changed = true
		}
		res.flags |= resultAllowed
	default:
		var permits int64
		permits, changed = applyNamed(&s, r, m, &o, avail, c.Again)
		if changed {
			res.flags |= resultAllowed
			aside, asideUntil = held(&s, m)
			avail = max(free(&s, r, m)-aside, 0)
		}
		if o.kind == opConfirm || o.kind == opAcquire {
			spent = permits
		}
	}

	res.remaining = avail
	if changed {
		res.granted = o.cost
	}
	res.whole = whole(&s, m)
	if !res.allowed() && o.cost > avail {
		res.retry = retryAfter(&s, r, m, o.cost, aside, asideUntil)
	}
	if avail < r.burst {
		res.next = retryAfter(&s, r, m, avail+1, aside, asideUntil)
	}
	if !changed {
		return s, res, cluster.Effect{}
	}
	e := cluster.Effect{Changed: true, Wait: o.flags&flagWait != 0}
	if spent > 0 {
		e.Spent, e.Bound = spent, max(r.limit/100, 1)
	}
	if res.whole > 0 {
		e.Expires = m.now + res.whole
	}
	if s.extra != nil {
		e.Expires = max(e.Expires, lastReserved(&s))
	}
	return s, res, e
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
func (mc machine) applyReset(s state, res result, m moment) (state, result, cluster.Effect) {
	if s.kind == kindNone || s.kind == kindGone {
		return s, res, cluster.Effect{}
	}
	res.flags |= resultAllowed
	remembered := min(max(whole(&s, m), lastReserved(&s)-m.now), int64(goneFor))
	if !mc.clustered || remembered <= 0 {
		return state{}, res, cluster.Effect{Changed: true, Wait: mc.clustered}
	}
	return state{kind: kindGone, reset: s.reset + 1, version: s.version}, res,
		cluster.Effect{Changed: true, Wait: true, Expires: m.now + remembered}
}
