package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/peer"
)

// Errors of calls that a caller can act on. Of those that [Node.Call] returns,
// ErrLost and the context's leave open whether the call has run; a *RemoteError
// says that it has; none of the others has run.
var (
	ErrUnknownMember = peer.ErrUnknownPeer // it is not in the list of members
	ErrGone          = peer.ErrPeerGone    // another process has its address now
	ErrUnreachable   = peer.ErrUnreachable
	ErrLost          = peer.ErrLost // the connection broke before the answer
	ErrBreakerOpen   = peer.ErrBreakerOpen
	ErrUnknownKind   = peer.ErrUnknownKind // the member has no handler for it
	ErrTooLarge      = peer.ErrTooLarge
)

// RemoteError is an error that a handler on another member returned.
type RemoteError = peer.RemoteError

// A Handler answers calls of one kind. The payload is its to keep. The context
// ends when the caller gives up or the member closes.
type Handler func(ctx context.Context, from Member, payload []byte) ([]byte, error)

// Handle sets the handler for a kind, a name of 1 to 64 bytes, or removes it if
// h is nil. Handlers run on goroutines of their own, 64 of a kind at a time, so
// that they may block for a while. A caller that is not (yet) in the list of
// members has a boot ID and no name.
func (n *Node) Handle(kind string, h func(ctx context.Context, from Member, payload []byte) ([]byte, error)) {
	if h == nil {
		n.peers.Handle(kind, nil)
		return
	}
	n.peers.Handle(kind, func(ctx context.Context, from peer.Boot, payload []byte) ([]byte, error) {
		return h(ctx, memberFrom(n.members.Get(uint64(from))), payload)
	})
}

// Call runs a member's handler of that kind and returns its answer. It waits
// until ctx ends, 2 s at most. A call to this member runs its own handler.
func (n *Node) Call(ctx context.Context, to Member, kind string, payload []byte) ([]byte, error) {
	o := CallObservation{Kind: kind, To: to.Name, Start: time.Now()}
	answer, err := n.peers.Call(ctx, peer.Boot(to.Boot), kind, payload)
	if err != nil {
		switch {
		case errors.Is(err, peer.ErrClosed):
			err = ErrClosed
		case errors.Is(err, peer.ErrBusy), errors.Is(err, peer.ErrQueueFull):
			err = ErrBusy
		}
		answer, err = nil, fmt.Errorf("call %s of %s: %w", kind, to.Name, err)
	}
	o.Err = err
	n.observe(ctx, o)
	return answer, err
}

// A Receipt says whom a Broadcast has reached.
type Receipt struct {
	Reached   int           // members whose handler has run without error
	Members   int           // members there were, this one included
	Took      time.Duration // until the last answer
	Unreached []string      // names of the others, sorted
}

// Complete tells whether every member was reached.
func (r Receipt) Complete() bool { return r.Reached == r.Members }

// Broadcast runs the handlers of that kind on all members at once, on this one
// too, and returns when all have answered, or ctx has ended, or 2 s are over.
func (n *Node) Broadcast(ctx context.Context, kind string, payload []byte) Receipt {
	began := time.Now()
	members := n.members.Members()
	to := make([]peer.Boot, len(members))
	for i, m := range members {
		to[i] = peer.Boot(m.Boot)
	}
	acks := n.peers.Broadcast(ctx, to, kind, payload)
	r := Receipt{Members: len(members), Took: time.Since(began)}
	for _, m := range members {
		if err := acks[peer.Boot(m.Boot)]; err != nil {
			r.Unreached = append(r.Unreached, m.ID)
			n.log.Debug("broadcast not acknowledged", "kind", kind, "member", m.ID, "error", err)
			continue
		}
		r.Reached++
	}
	slices.Sort(r.Unreached)
	n.observe(ctx, CallObservation{Kind: kind, Start: began, Receipt: r})
	return r
}

// ResetBreaker closes a breaker at once: a peer's, named by its node ID, or
// "kv". The error is ErrUnknownMember.
func (n *Node) ResetBreaker(name string) error {
	if name == "kv" {
		n.kv.ResetBreaker()
		return nil
	}
	err := fmt.Errorf("cluster: reset breaker %q: %w", name, ErrUnknownMember)
	for _, m := range n.members.Members() {
		if m.ID == name && m.Boot != n.boot {
			err = n.peers.ResetBreaker(peer.Boot(m.Boot))
		}
	}
	return err
}

// kvStatus returns the state of the key-value store.
func (n *Node) kvStatus() KVStatus {
	state := "available"
	if !n.kv.Healthy() {
		state = "unavailable"
	}
	return KVStatus{State: state, Breaker: n.kv.BreakerState(), Gossip: n.members.Self().KVGossip}
}
