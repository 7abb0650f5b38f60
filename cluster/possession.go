package cluster

import (
	"context"

	"github.com/peerlimit/peerlimit/cluster/internal/peer"
	"github.com/peerlimit/peerlimit/cluster/internal/ring"
)

// A possessor runs the protocol that decides which slots this member serves.
// Its methods must not wait, but for drain and close.
type possessor interface {
	// begin is called once, when the member has joined or has nobody to join.
	// Before that it must serve nothing.
	begin()
	// membersChanged is called one at a time, with the members that live, this
	// one included, and the ring made of those that don't drain. It may be
	// called before begin.
	membersChanged(r *ring.Ring, members []Member)
	// message and down pass on what the peers' transport received and lost.
	message(from peer.Boot, m peer.Message)
	down(peer.Loss)
	// drain hands over everything and returns when that is done, or with ctx's
	// error; it may be called again then.
	drain(ctx context.Context) error
	// ready returns nil once the member serves what it should, or why not yet.
	ready() error
	// readied is closed when ready returns nil for the first time.
	readied() <-chan struct{}
	// close stops at once and waits for what runs.
	close()
}
