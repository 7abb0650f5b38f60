package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Bounds of calls, in bytes.
const (
	MaxKind        = 64                                // of a kind's name
	MaxCallPayload = MaxPayload - callHeader - MaxKind // of a call
	MaxCallAnswer  = MaxPayload - 1                    // of an answer
	callHeader     = 4 + 1                             // milliseconds the caller waits, length of the kind
	maxErrorText   = 1 << 10                           // of a RemoteError
)

const (
	// A caller's own deadline counts against the peer only if the peer had this long to answer. (As long as a caller
	// waits before it sends an operation elsewhere, PROTOCOL.md, "Serving".)
	fairTime = 100 * time.Millisecond
	// What Broadcast waits for a peer whose breaker is open.
	doubtfulTime = 250 * time.Millisecond
)

// status begins an answer.
type status byte

const (
	statusOK status = iota
	statusError
	statusUnknownKind
	statusBusy
	statusTooLarge
)

// call is one that waits for its answer.
type call struct {
	peer   *member // nil: this member itself
	kind   string
	id     uint64
	ticket func(error)
	began  time.Time
	done   chan result // one result
}

type result struct {
	payload []byte
	err     error
}

// calls are those a peer owes an answer to.
type calls struct {
	mu   sync.Mutex
	open map[uint64]*call
}

func (c *calls) add(k *call, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= most {
		return false
	}
	if c.open == nil {
		c.open = make(map[uint64]*call)
	}
	c.open[k.id] = k
	return true
}

func (c *calls) take(id uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.open[id]
	delete(c.open, id)
	return k
}

func (c *calls) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

func (c *calls) failAll(err error) {
	c.mu.Lock()
	open := c.open
	c.open = nil
	c.mu.Unlock()
	for _, k := range open {
		k.done <- result{err: err}
	}
}

// Call runs the peer's handler of that kind and returns its answer. It waits until the context ends, but at most
// Config.CallTimeout. A call to this member itself runs its own handler. Errors: ErrUnknownPeer, ErrPeerGone,
// ErrUnreachable, ErrQueueFull, ErrBreakerOpen, ErrBusy, ErrUnknownKind, ErrTooLarge, ErrClosed (none of these has run),
// ErrLost or the context's (it may have run), or a *RemoteError (it has run).
func (t *Transport) Call(ctx context.Context, to Boot, kind string, payload []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.CallTimeout)
	defer cancel()
	k, err := t.begin(ctx, to, kind, payload, true)
	if err != nil {
		return nil, fmt.Errorf("peer: call %s: %w", kind, err)
	}
	answer, err := t.await(ctx, k)
	if err != nil {
		return nil, fmt.Errorf("peer: call %s: %w", kind, err)
	}
	return answer, nil
}

// Broadcast runs the handlers of that kind on all the members named, at once, and returns for each nil or the error
// Call would have returned; the answers are dropped. A peer whose breaker is open is tried all the same, but not for
// long: a broadcast is meant to reach everyone it can.
func (t *Transport) Broadcast(ctx context.Context, to []Boot, kind string, payload []byte) map[Boot]error {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.CallTimeout)
	defer cancel()
	doubtful, cancel := context.WithTimeout(ctx, doubtfulTime)
	defer cancel()
	acks := make(map[Boot]error, len(to))
	begun := make(map[Boot]*call, len(to))
	for _, boot := range to {
		if _, twice := acks[boot]; twice || begun[boot] != nil {
			continue
		}
		wait := ctx
		if p := t.peer(boot); p != nil && p.breaker.state() != BreakerClosed {
			wait = doubtful
		}
		if k, err := t.begin(wait, boot, kind, payload, false); err != nil {
			acks[boot] = err
		} else {
			begun[boot] = k
		}
	}
	for boot, k := range begun {
		wait := ctx
		if k.peer != nil && k.peer.breaker.state() != BreakerClosed {
			wait = doubtful
		}
		_, acks[boot] = t.await(wait, k)
	}
	return acks
}

// begin sends a call. When gated, an open breaker refuses it.
func (t *Transport) begin(ctx context.Context, to Boot, kind string, payload []byte, gated bool) (*call, error) {
	switch {
	case len(kind) == 0 || len(kind) > MaxKind:
		return nil, fmt.Errorf("kind must have 1 to %d bytes, has %d", MaxKind, len(kind))
	case len(payload) > MaxCallPayload:
		return nil, fmt.Errorf("%w: payload must have at most %d bytes, has %d", ErrTooLarge, MaxCallPayload, len(payload))
	case t.ctx.Err() != nil:
		return nil, ErrClosed
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	k := &call{kind: kind, id: t.nextCall.Add(1), began: time.Now(), done: make(chan result, 1)}
	if to == t.cfg.Self {
		return k, t.callSelf(ctx, k, payload)
	}
	if k.peer = t.peer(to); k.peer == nil {
		return nil, ErrUnknownPeer
	}
	ticket, ok := k.peer.breaker.enter()
	if !ok && gated {
		return nil, ErrBreakerOpen
	}
	k.ticket = ticket
	if !k.peer.calls.add(k, t.cfg.MaxInFlight) {
		k.peer.breaker.leave(ticket, neither)
		return nil, ErrBusy
	}
	b := appendCall(make([]byte, 0, callHeader+len(kind)+len(payload)), remaining(ctx), kind, payload)
	err := k.peer.links[LaneCalls].send(&Message{Type: typeCall, ID: k.id, Payload: b})
	if err != nil {
		k.peer.calls.take(k.id)
		o := neither // a full queue, or a peer just removed
		if errors.Is(err, ErrUnreachable) || errors.Is(err, ErrPeerGone) {
			o = failed
		}
		k.peer.breaker.leave(ticket, o)
		return nil, err
	}
	return k, nil
}

// await waits for the answer of a call that was sent. An answer that has come counts, even if the context has ended.
func (t *Transport) await(ctx context.Context, k *call) ([]byte, error) {
	var r result
	select {
	case r = <-k.done:
	case <-t.ctx.Done():
		r.err = ErrClosed
	case <-ctx.Done():
		r = t.giveUp(k, ctx.Err())
	}
	if k.peer != nil {
		k.peer.breaker.leave(k.ticket, t.blame(k, r.err))
	}
	return r.payload, r.err
}

// giveUp returns the result of a call that is waited for no longer.
func (t *Transport) giveUp(k *call, why error) result {
	if k.peer == nil {
		select {
		case r := <-k.done:
			return r
		default:
			return result{err: why}
		}
	}
	if k.peer.calls.take(k.id) == nil {
		return <-k.done // who took it sends this
	}
	if c := k.peer.links[LaneCalls].cur.Load(); c != nil {
		_ = c.push(&Message{Type: typeCancel, ID: k.id}) // a courtesy: the other side's deadline ends it too
	}
	return result{err: why}
}

// blame says what a call's end means for the peer's breaker.
func (t *Transport) blame(k *call, err error) outcome {
	switch {
	case errors.Is(err, ErrLost), errors.Is(err, ErrUnreachable), errors.Is(err, ErrPeerGone):
		if k.ticket == nil {
			return neither // lose has told the breaker
		}
		return failed
	case errors.Is(err, context.DeadlineExceeded):
		if time.Since(k.began) >= min(fairTime, t.cfg.CallTimeout) && !t.stoodStill(k.began) {
			return failed
		}
		return neither
	case errors.Is(err, ErrClosed), errors.Is(err, ErrUnknownPeer), errors.Is(err, context.Canceled):
		return neither
	}
	return succeeded
}

// answered takes a reply in.
func (t *Transport) answered(p *member, id uint64, payload []byte) error {
	s, body, err := parseReply(payload)
	if err != nil {
		return err
	}
	k := p.calls.take(id)
	if k == nil {
		return nil // its caller has gone
	}
	k.done <- s.result(k.kind, body)
	return nil
}

// result is what the caller gets. body is copied.
func (s status) result(kind string, body []byte) result {
	switch s {
	case statusOK:
		return result{payload: append([]byte(nil), body...)}
	case statusUnknownKind:
		return result{err: ErrUnknownKind}
	case statusBusy:
		return result{err: ErrBusy}
	case statusTooLarge:
		return result{err: fmt.Errorf("%w: answer", ErrTooLarge)}
	}
	return result{err: &RemoteError{Kind: kind, Text: string(body)}}
}

// appendCall appends a call's payload: how long the caller waits in ms, the kind with its length, the rest.
func appendCall(b []byte, wait time.Duration, kind string, payload []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(wait.Milliseconds()))
	b = append(b, byte(len(kind)))
	b = append(b, kind...)
	return append(b, payload...)
}

func parseCall(b []byte) (wait time.Duration, kind string, payload []byte, err error) {
	if len(b) < callHeader || b[4] == 0 || b[4] > MaxKind || len(b) < callHeader+int(b[4]) {
		return 0, "", nil, refuse(reasonPayload, errors.New("malformed call"))
	}
	n := callHeader + int(b[4])
	wait = time.Duration(binary.BigEndian.Uint32(b)) * time.Millisecond
	return wait, string(b[callHeader:n]), b[n:], nil
}

// appendReply appends a reply's payload: a status, and the answer or the error's text.
func appendReply(b []byte, s status, body []byte) []byte { return append(append(b, byte(s)), body...) }

func parseReply(b []byte) (status, []byte, error) {
	if len(b) == 0 || status(b[0]) > statusTooLarge {
		return 0, nil, refuse(reasonPayload, errors.New("malformed reply"))
	}
	return status(b[0]), b[1:], nil
}

// remaining is how long the context's holder still waits, within what a call can say.
func remaining(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return time.Hour
	}
	return min(max(time.Until(deadline), time.Millisecond), time.Hour)
}
