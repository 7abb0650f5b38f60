package ratelimit

// opKind is what an operation asks for.
type opKind uint8

const (
	opTake    opKind = iota + 1 // spend cost if it is there
	opAtMost                    // spend what is there of cost
	opStatus                    // spend nothing
	opRefund                    // give cost back
	opReset                     // forget what was used
	opReserve                   // set cost aside under id
	opConfirm                   // spend what id set aside
	opRelease                   // give back what id set aside
	opAcquire                   // take a place of cost permits under id
	opRenew                     // hold on to the place id
	opLeave                     // give back the place id
	opLease                     // lend at most cost permits to the member id, as its slice seq
	opReturn                    // take slice seq of the member id back, of which cost is unused
	opKindEnd
)

// opFlags modify an operation.
type opFlags uint8

const (
	// flagWait: answer only when the backup has the change.
	flagWait opFlags = 1 << iota
	// flagKnown: do nothing for a key of which nothing is known.
	flagKnown
	flagsEnd
)

// op is one operation on a key's state. It carries the caller's rule.
type op struct {
	kind  opKind
	flags opFlags
	rule  rule
	cost  int64
	id    uint64 // of a reservation, a place or a borrower
	seq   uint64 // of a borrower's slice
}

// result is what an operation answers.
type result struct {
	flags     resultFlags
	granted   int64 // permits spent, set aside, or given back
	remaining int64
	retry     int64 // ns
	whole     int64 // ns
	next      int64 // ns

	lasts int64 // ns: of a slice that was granted

	// out is set where the operation was denied, or not run at all, while
	// slices are out.
	out *outstanding
}

type resultFlags uint8

const (
	resultAllowed     resultFlags = 1 << iota // the operation was done
	resultFresh                               // nothing was known of the key before
	resultUnknown                             // flagKnown, and nothing is known of the key
	resultOut                                 // out is set
	resultNotRun                              // it has to wait until no slice is out
	resultSoon                                // permits may come back before retry is over
	resultLent                                // lasts is set
	resultUnprotected                         // the holder has nobody left to copy to
)

// reason is what a decision says of an ordinary result.
func (r *result) reason() string {
	if r.flags&resultUnprotected != 0 {
		return ReasonUnprotected
	}
	return ""
}

func (f resultFlags) allowed() bool { return f&resultAllowed != 0 }

func (r result) allowed() bool { return r.flags.allowed() }
