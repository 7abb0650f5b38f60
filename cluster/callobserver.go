package cluster

import (
	"context"
	"time"
)

// CallObserver is told of every Call and Broadcast of a member when it is over.
// It lets traces and metrics be fed without this package knowing of either. It
// is called by the goroutine that called, and must not block. ctx is the
// caller's.
type CallObserver interface {
	Called(ctx context.Context, c CallObservation)
}

// CallObservation is one call to another member, or to all.
type CallObservation struct {
	Kind string // of the handler
	// To is the name of the member, empty for a broadcast.
	To string
	// Start and Took are when the call was made and how long it took.
	Start time.Time
	Took  time.Duration
	// Err is what Call returned.
	Err error
	// Receipt is what Broadcast returned.
	Receipt Receipt
}

// observe tells the observer, if there is one.
func (n *Node) observe(ctx context.Context, o CallObservation) {
	if n.cfg.Calls != nil {
		o.Took = time.Since(o.Start)
		n.cfg.Calls.Called(ctx, o)
	}
}
