package auth

import (
	"context"
	"sync/atomic"
	"time"
)

// Receipt says how far the news of a change came.
type Receipt struct {
	// Reached of Members acknowledged it, this one among them.
	Reached int `json:"reached"`
	Members int `json:"members"`
	// Took is from the call to its return.
	Took time.Duration `json:"-"`
	// Unreached are the names of the others. Nothing that they have cached is confirmed any more: they read the
	// store, or what they missed, before they accept the key again.
	Unreached []string `json:"unreached,omitempty"`
}

// peers are the other members, as far as this package needs them.
type peers interface {
	// handle sets what is done with a message, nil: nothing any more. f runs on this member's own broadcasts too.
	handle(kind string, f func(payload []byte))
	// broadcast returns when every member has acknowledged or ctx is done. Took is not set.
	broadcast(ctx context.Context, kind string, payload []byte) Receipt
	// watch calls f when whole may answer differently. It returns a function that ends that.
	watch(f func()) (stop func())
	// whole reports whether no member is missing: all that were seen are here or took their leave.
	whole() bool
}

// alone is a member without others.
type alone struct{ f atomic.Pointer[func([]byte)] }

func (a *alone) handle(_ string, f func([]byte)) { a.f.Store(&f) }
func (a *alone) watch(func()) func()             { return func() {} }
func (a *alone) whole() bool                     { return true }

func (a *alone) broadcast(_ context.Context, _ string, payload []byte) Receipt {
	if f := a.f.Load(); f != nil && *f != nil {
		(*f)(payload)
	}
	return Receipt{Reached: 1, Members: 1}
}
