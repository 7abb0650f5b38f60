package peer

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// steps of one breaker: "allow" takes a ticket, "ok", "fail" and "cancel" tell the outcome of the oldest ticket, or of a
// call of before.
func TestBreakerSteps(t *testing.T) {
	type step struct {
		after time.Duration
		do    string // "fail", "ok", "cancel", "allow", "deny", "reset"
		want  BreakerState
	}
	for name, steps := range map[string][]step{
		"five in a row open it": {
			{0, "fail", BreakerClosed}, {0, "fail", BreakerClosed}, {0, "fail", BreakerClosed}, {0, "fail", BreakerClosed},
			{0, "allow", BreakerClosed}, {0, "fail", BreakerOpen}, {0, "deny", BreakerOpen}, {breakerOpenFor * 9 / 10, "deny", BreakerOpen},
		},
		"a success in between does not": {
			{0, "fail", BreakerClosed}, {0, "fail", BreakerClosed}, {0, "fail", BreakerClosed}, {0, "fail", BreakerClosed},
			{0, "ok", BreakerClosed}, {0, "fail", BreakerClosed}, {0, "fail", BreakerClosed}, {0, "fail", BreakerClosed},
			{0, "fail", BreakerClosed}, {0, "cancel", BreakerClosed}, {0, "fail", BreakerOpen},
		},
		"two successes close it": {
			{0, "open", BreakerOpen}, {breakerOpenFor * 11 / 10, "allow", BreakerHalfOpen}, {0, "allow", BreakerHalfOpen},
			{0, "deny", BreakerHalfOpen}, {0, "ok", BreakerHalfOpen}, {0, "ok", BreakerClosed}, {0, "allow", BreakerClosed},
		},
		"a failure opens it again": {
			{0, "open", BreakerOpen}, {breakerOpenFor * 11 / 10, "allow", BreakerHalfOpen}, {0, "fail", BreakerOpen}, {0, "deny", BreakerOpen},
		},
		"a cancelled one makes room for another": {
			{0, "open", BreakerOpen}, {breakerOpenFor * 11 / 10, "allow", BreakerHalfOpen}, {0, "allow", BreakerHalfOpen},
			{0, "deny", BreakerHalfOpen}, {0, "cancel", BreakerHalfOpen}, {0, "allow", BreakerHalfOpen}, {0, "deny", BreakerHalfOpen},
		},
		"outcomes of before say nothing": {
			{0, "open", BreakerOpen}, {0, "ok", BreakerOpen}, {0, "fail", BreakerOpen}, {breakerOpenFor * 11 / 10, "ok", BreakerHalfOpen},
			{0, "fail", BreakerHalfOpen},
		},
		"reset closes it": {
			{0, "open", BreakerOpen}, {0, "reset", BreakerClosed}, {0, "allow", BreakerClosed}, {0, "fail", BreakerClosed},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(func(BreakerState, BreakerState) {})
				var tickets []func(error)
				tell := func(o outcome) {
					var ticket func(error)
					if len(tickets) > 0 {
						ticket, tickets = tickets[0], tickets[1:]
					}
					b.leave(ticket, o)
				}
				for i, s := range steps {
					time.Sleep(s.after)
					switch s.do {
					case "fail":
						tell(failed)
					case "open":
						for range breakerFailures {
							tell(failed)
						}
					case "ok":
						tell(succeeded)
					case "cancel":
						tell(neither)
					case "reset":
						b.reset()
					case "allow", "deny":
						ticket, got := b.enter()
						if got != (s.do == "allow") {
							t.Fatalf("step %d, %s: allowed is %v", i, s.do, got)
						}
						if ticket != nil && got {
							tickets = append(tickets, ticket)
						}
					}
					if got := b.state(); got != s.want {
						t.Fatalf("step %d, %s: state %v, want %v", i, s.do, got, s.want)
					}
				}
			})
		})
	}
}

func TestBreakerTicketsOfBeforeSayNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(func(BreakerState, BreakerState) {})
		for range breakerFailures {
			b.leave(nil, failed)
		}
		time.Sleep(breakerOpenFor * 11 / 10)
		early, ok := b.enter()
		if !ok {
			t.Fatal("a half-open breaker let nobody through")
		}
		second, _ := b.enter()
		b.leave(second, failed)
		b.leave(early, failed)
		if b.state() != BreakerOpen {
			t.Fatal(b.state())
		}
		time.Sleep(breakerOpenFor * 11 / 10)
		b.leave(early, succeeded)
		b.leave(early, succeeded)
		if s := b.state(); s != BreakerHalfOpen {
			t.Fatalf("a call of an earlier state made it %v", s)
		}
	})
}

func TestBreakerOfAPeer(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		log := new(logLines)
		a, b := v.add(1, func(c *Config) { c.Logger = log.logger() }), v.add(2, nil)
		var mute atomic.Bool
		b.Handle("x", func(ctx context.Context, _ Boot, _ []byte) ([]byte, error) {
			if mute.Load() {
				<-ctx.Done()
				time.Sleep(time.Millisecond) // too late: its caller has the same deadline
			}
			return nil, errors.New("an answer all the same")
		})
		v.introduce()
		call := func(ctx context.Context) error {
			_, err := a.Call(ctx, 2, "x", nil)
			return err
		}
		var remote *RemoteError
		for range 10 {
			if err := call(t.Context()); !errors.As(err, &remote) {
				t.Fatal(err)
			}
		}
		mute.Store(true)
		for range 10 { // callers that give up, or grant no time, are no failures of the peer
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			if err := call(ctx); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cancel()
		}
		if s := a.BreakerState(2); s != BreakerClosed {
			t.Fatal(s)
		}
		for range breakerFailures {
			if err := call(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
		opened := time.Now()
		if err := call(t.Context()); !errors.Is(err, ErrBreakerOpen) {
			t.Fatal(err)
		}
		mute.Store(false)
		if acks := a.Broadcast(t.Context(), []Boot{2}, "x", nil); !errors.As(acks[2], &remote) {
			t.Errorf("a broadcast was not tried at an open breaker: %v", acks)
		}
		time.Sleep(time.Until(opened.Add(breakerOpenFor * 11 / 10)))
		for range breakerSuccesses {
			if err := call(t.Context()); !errors.As(err, &remote) {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		a.mu.Lock()
		defer a.mu.Unlock()
		var states []BreakerState
		for _, c := range a.changes {
			if c.Boot != 2 || c.Name != "node2" || c.At.Before(opened) {
				t.Errorf("change %+v", c)
			}
			states = append(states, c.To)
		}
		if !slices.Equal(states, []BreakerState{BreakerOpen, BreakerHalfOpen, BreakerClosed}) {
			t.Errorf("changes %v", states)
		}
		if at := a.changes[1].At.Sub(opened); at < breakerOpenFor || at > breakerOpenFor+2*pulseEvery {
			t.Errorf("half-open after %v", at)
		}
		for line, level := range map[string]string{"breaker open": "WARN", "breaker half-open": "INFO", "breaker closed": "INFO"} {
			if log.count(line, "name=node2") != 1 || log.count(line, level) != 1 {
				t.Errorf("log line %q: %v", line, log.lines)
			}
		}
	})
}

func TestResetBreaker(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a := v.add(1, nil)
		v.add(2, nil)
		v.introduce()
		synctest.Wait() // a connection that is made closes the breaker
		openBreaker(a, 2)
		if a.BreakerState(2) != BreakerOpen || a.Stats().Peers[0].Breaker != BreakerOpen {
			t.Fatal("not open")
		}
		if err := a.ResetBreaker(2); err != nil || a.BreakerState(2) != BreakerClosed {
			t.Fatalf("not reset: %v", err)
		}
		if err := a.ResetBreaker(9); !errors.Is(err, ErrUnknownPeer) {
			t.Fatal(err)
		}
		if a.BreakerState(9) != BreakerClosed {
			t.Error("an unknown peer has a breaker")
		}
	})
}

// openBreaker has the peer fail as often as it takes.
func openBreaker(v *villager, of Boot) {
	for range breakerFailures {
		v.peer(of).breaker.leave(nil, failed)
	}
}

func BenchmarkBreaker(b *testing.B) {
	k := newBreaker(func(BreakerState, BreakerState) {})
	for b.Loop() {
		ticket, _ := k.enter()
		k.leave(ticket, succeeded)
	}
}
