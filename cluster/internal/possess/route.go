package possess

// Route is where an operation goes next: the way one caller follows until it
// is answered. It is a value with no clock of its own.
type Route struct {
	order  [4]ID
	at     int // position in order of the next one to try
	epoch  uint64
	target ID
	// Tried is a member that could not be reached or was silent.
	Tried ID
	sent  int64
}

const (
	routeSilence = 100_000_000 // 100 ms without an answer: try another
	routeBackoff = 5_000_000   // 5 ms before a member is tried again in vain
)

// NewRoute starts at who is known to hold the slot.
func NewRoute(order [4]ID, holder ID, epoch uint64) Route {
	return Route{order: order, target: holder, epoch: epoch}
}

// Target returns whom to send to.
func (r *Route) Target() ID { return r.target }

// Sent notes that the operation was sent to Target.
func (r *Route) Sent(now int64) { r.sent = now }

// Due returns when Target counts as silent.
func (r *Route) Due() int64 { return r.sent + routeSilence }

// Failed notes that Target can't be reached or was silent, and moves on. It
// returns how long to wait before sending.
func (r *Route) Failed() (wait int64) {
	r.Tried = r.target
	return r.next()
}

// Elsewhere notes that Target does not know who holds the slot, and moves on.
func (r *Route) Elsewhere() (wait int64) { return r.next() }

// MovedTo notes that Target sent the operation on: to a strictly later epoch
// it is followed at once; else another is tried, after a pause.
func (r *Route) MovedTo(to ID, epoch uint64) (wait int64) {
	if to != 0 && to != r.target && (epoch > r.epoch || to != r.Tried) {
		if epoch <= r.epoch {
			wait = routeBackoff / 5
		}
		r.target, r.epoch = to, max(r.epoch, epoch)
		return wait
	}
	return r.next()
}

func (r *Route) next() (wait int64) {
	for range r.order {
		id := r.order[r.at%len(r.order)]
		r.at++
		if id != 0 && id != r.target && id != r.Tried {
			r.target = id
			if r.at > len(r.order) {
				return routeBackoff
			}
			return 0
		}
	}
	return routeBackoff // the same again
}
