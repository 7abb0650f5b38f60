package peer

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// BreakerState is the state of a peer's breaker; its numbers are those of peerlimit_breaker_state.
type BreakerState int

// The states of a breaker.
const (
	BreakerClosed   BreakerState = 0
	BreakerHalfOpen BreakerState = 1
	BreakerOpen     BreakerState = 2
)

func (s BreakerState) String() string { return gobreaker.State(s).String() }

// BreakerChange is a breaker's change of state.
type BreakerChange struct {
	Boot     Boot
	Name     string // the peer's stable node ID
	From, To BreakerState
	At       time.Time
}

// What makes a breaker open and close.
const (
	breakerFailures  = 5 // in a row
	breakerSuccesses = 2 // when half-open; also the most that are tried at once
	breakerOpenFor   = 10 * time.Second
)

// outcome is what became of a call, as far as the peer is to blame or to praise.
type outcome int

const (
	succeeded outcome = iota
	failed
	neither // given up by its caller
)

var (
	errFailed  = errors.New("failed")
	errNeither = errors.New("neither")
)

func (o outcome) err() error { return [...]error{nil, errFailed, errNeither}[o] }

// breaker is one peer's. While there are no recent failures, asking it and praising it cost one atomic load.
type breaker struct {
	trouble atomic.Bool // false: closed, and the last outcome was a success
	changed func(from, to BreakerState)

	mu sync.Mutex // guards what follows; gobreaker calls changed with it held
	cb *gobreaker.TwoStepCircuitBreaker[struct{}]
}

// newBreaker makes a closed one. changed is called under locks: it must only take note.
func newBreaker(changed func(from, to BreakerState)) *breaker {
	b := &breaker{changed: changed}
	b.resetLocked()
	return b
}

func (b *breaker) resetLocked() {
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:   breakerSuccesses,
		Timeout:       breakerOpenFor,
		ReadyToTrip:   func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= breakerFailures },
		OnStateChange: func(_ string, from, to gobreaker.State) { b.changed(BreakerState(from), BreakerState(to)) },
		IsExcluded:    func(err error) bool { return errors.Is(err, errNeither) },
	})
	b.trouble.Store(false)
}

// state returns the state now, open having become half-open if it is time.
func (b *breaker) state() BreakerState {
	if !b.trouble.Load() {
		return BreakerClosed
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return BreakerState(b.cb.State())
}

// reset closes it.
func (b *breaker) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if from := b.cb.State(); from != gobreaker.StateClosed {
		b.changed(BreakerState(from), BreakerClosed)
	}
	b.resetLocked()
}

// connected closes it: that the peer has just authenticated itself is newer than whatever opened it.
func (b *breaker) connected() {
	if b.state() != BreakerClosed {
		b.reset()
	}
}

// unreachable tells that a dial failed. When half-open that is the outcome of a try.
func (b *breaker) unreachable() {
	if ticket, ok := b.enter(); ok {
		b.leave(ticket, failed)
	}
}

// enter asks for leave to call. The ticket is for leave, and may be nil; it belongs to one state of the breaker, so
// that a call of before can't close it.
func (b *breaker) enter() (ticket func(error), ok bool) {
	if !b.trouble.Load() {
		return nil, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cb.State() == gobreaker.StateClosed {
		return nil, true
	}
	ticket, err := b.cb.Allow()
	return ticket, err == nil
}

// leave tells the outcome of a call that was let through.
func (b *breaker) leave(ticket func(error), o outcome) {
	if o == succeeded && !b.trouble.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case ticket != nil:
		ticket(o.err())
	case o == neither || b.cb.State() != gobreaker.StateClosed:
		return // sent before it opened: says nothing of now
	default:
		if done, err := b.cb.Allow(); err == nil {
			done(o.err())
		}
	}
	if o == failed {
		b.trouble.Store(true)
	} else if o == succeeded && b.cb.State() == gobreaker.StateClosed {
		b.trouble.Store(false)
	}
}

// BreakerState returns the state of the peer's breaker, closed for an unknown one.
func (t *Transport) BreakerState(of Boot) BreakerState {
	if p := t.peer(of); p != nil {
		return p.breaker.state()
	}
	return BreakerClosed
}

// ResetBreaker closes the peer's breaker. The error is ErrUnknownPeer.
func (t *Transport) ResetBreaker(of Boot) error {
	p := t.peer(of)
	if p == nil {
		return ErrUnknownPeer
	}
	p.breaker.reset()
	return nil
}

// breakerNews carries changes from under the breakers' locks to the hook.
type breakerNews struct {
	mu   sync.Mutex
	news []BreakerChange
	wake chan struct{}
}

func (n *breakerNews) add(c BreakerChange) {
	n.mu.Lock()
	n.news = append(n.news, c)
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *breakerNews) take() []BreakerChange {
	n.mu.Lock()
	defer n.mu.Unlock()
	news := n.news
	n.news = nil
	return news
}

// tellBreakers logs changes and passes them to the hook, until the transport closes.
func (t *Transport) tellBreakers() {
	for {
		select {
		case <-t.news.wake:
		case <-t.ctx.Done():
			return
		}
		for _, c := range t.news.take() {
			level := slog.LevelInfo
			if c.To == BreakerOpen {
				level = slog.LevelWarn
			}
			t.cfg.Logger.Log(t.ctx, level, "breaker "+c.To.String(), "name", c.Name, "boot", c.Boot.String())
			if t.cfg.Breaker != nil {
				t.cfg.Breaker(c)
			}
		}
	}
}
