package peer

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestCallAnswers(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"plain":  nil,
		"secret": func(c *Config) { c.Secrets = [][]byte{[]byte("a secret of the test")} },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := start(t, 1, change), start(t, 2, change)
			b.Handle("greet", func(_ context.Context, from Boot, p []byte) ([]byte, error) {
				return []byte("hello " + string(p) + " from " + from.String()), nil
			})
			b.Handle("fail", func(context.Context, Boot, []byte) ([]byte, error) { return nil, errors.New("no") })
			introduce(a, b)
			got, err := a.Call(ctxFor(t, 5*time.Second), 2, "greet", []byte("world"))
			if err != nil || string(got) != "hello world from 0000000000000001" {
				t.Fatalf("got %q, %v", got, err)
			}
			var remote *RemoteError
			if _, err := a.Call(ctxFor(t, 5*time.Second), 2, "fail", nil); !errors.As(err, &remote) || remote.Text != "no" {
				t.Fatalf("got %v", err)
			}
			if _, err := a.Call(ctxFor(t, 5*time.Second), 2, "nothing", nil); !errors.Is(err, ErrUnknownKind) {
				t.Fatalf("got %v", err)
			}
			if _, err := a.Call(ctxFor(t, 5*time.Second), 3, "greet", nil); !errors.Is(err, ErrUnknownPeer) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestCallsThatFail(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, func(c *Config) { c.MaxInFlight = 2 }), v.add(2, func(c *Config) {
			c.MaxHandlers, c.MaxHandlerQueue = 1, 1
		})
		v.introduce()
		ended := make(chan error, 10)
		b.Handle("stuck", func(ctx context.Context, _ Boot, _ []byte) ([]byte, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		})
		b.Handle("quick", func(context.Context, Boot, []byte) ([]byte, error) { return nil, nil })
		b.Handle("huge", func(context.Context, Boot, []byte) ([]byte, error) { return make([]byte, MaxCallAnswer+1), nil })
		b.Handle("long", func(_ context.Context, _ Boot, p []byte) ([]byte, error) { return nil, errors.New(string(p)) })

		for name, c := range map[string]struct {
			kind    string
			payload int
			want    error
		}{
			"payload too large": {"quick", MaxCallPayload + 1, ErrTooLarge},
			"answer too large":  {"huge", 0, ErrTooLarge},
			"no handler":        {"none", 0, ErrUnknownKind},
			"largest payload":   {"quick", MaxCallPayload, nil},
		} {
			if _, err := a.Call(t.Context(), 2, c.kind, make([]byte, c.payload)); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, kind := range []string{"", string(make([]byte, MaxKind+1))} {
			if _, err := a.Call(t.Context(), 2, kind, nil); err == nil {
				t.Errorf("kind of %d bytes was taken", len(kind))
			}
		}
		var remote *RemoteError
		if _, err := a.Call(t.Context(), 2, "long", make([]byte, 5000)); !errors.As(err, &remote) || len(remote.Text) != maxErrorText {
			t.Errorf("a long error text: %v", err)
		}

		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := a.Call(ctx, 2, "stuck", nil)
				results <- err
			}()
			synctest.Wait()
		}
		if _, err := a.Call(ctx, 2, "quick", nil); !errors.Is(err, ErrBusy) {
			t.Errorf("a third call of two in flight: %v", err)
		}
		c := v.add(3, nil)
		c.SetPeers(v.peers())
		if _, err := c.Call(t.Context(), 2, "stuck", nil); !errors.Is(err, ErrBusy) {
			t.Errorf("a call beyond the handlers' queue: %v", err)
		}
		if _, err := c.Call(t.Context(), 2, "quick", nil); err != nil {
			t.Errorf("another kind was held up: %v", err)
		}
		cancel()
		for range 2 {
			if err := <-results; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context: %v", err)
		}
		if n := a.Stats().Peers[0].InFlight; n != 0 {
			t.Errorf("%d calls are left over", n)
		}
	})
}

func TestCallsEndWithTheirPeer(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(v *village, a, b *villager)
		want error
	}{
		"killed":  {func(v *village, a, b *villager) { v.net.Kill(b.host) }, ErrLost},
		"removed": {func(v *village, a, b *villager) { a.SetPeers(nil) }, ErrUnknownPeer},
		"closed":  {func(v *village, a, b *villager) { _ = a.Close() }, ErrClosed},
		"silent":  {func(v *village, a, b *villager) { v.net.Split(a.host, b.host) }, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			inVillage(t, func(t *testing.T, v *village) {
				a, b := v.add(1, nil), v.add(2, nil)
				b.Handle("stuck", func(ctx context.Context, _ Boot, _ []byte) ([]byte, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				})
				v.introduce()
				result := make(chan error)
				began := time.Now()
				go func() {
					_, err := a.Call(t.Context(), 2, "stuck", nil)
					result <- err
				}()
				synctest.Wait()
				c.end(v, a, b)
				if err := <-result; !errors.Is(err, c.want) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(began); took > 0 && name != "silent" || took > 2*time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// A hundred calls lost with one connection say no more about a peer than one: its breaker stays closed.
func TestOneLostConnectionIsOneFailure(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, nil), v.add(2, nil)
		b.Handle("stuck", func(ctx context.Context, _ Boot, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		v.introduce()
		var wait sync.WaitGroup
		for range 100 {
			wait.Go(func() {
				if _, err := a.Call(t.Context(), 2, "stuck", nil); !errors.Is(err, ErrLost) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		for _, c := range a.peer(2).links[LaneCalls].snapshot() {
			c.fail(errors.New("cut"))
		}
		wait.Wait()
		synctest.Wait()
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.changes) > 0 {
			t.Errorf("the breaker changed: %v", a.changes)
		}
	})
}

// A process that was stopped must not take it for a peer's fault that calls have run out of time meanwhile.
func TestOwnStandstillIsNoFailure(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a := v.add(1, nil)
		began := time.Now()
		time.Sleep(time.Second)
		if a.stoodStill(began) {
			t.Error("a steady pulse counts as a standstill")
		}
		a.lastBeat.Add(-int64(time.Second)) // as if nothing had run for a second
		if !a.stoodStill(began) {
			t.Error("a standstill that has just ended is not seen")
		}
		time.Sleep(2 * pulseEvery)
		if !a.stoodStill(began) || a.stoodStill(time.Now()) {
			t.Error("a standstill counts for what began before it, and for nothing else")
		}
	})
}

// Whatever opened a breaker, that the peer has connected since is newer.
func TestConnectingClosesTheBreaker(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, nil), v.add(2, nil)
		v.introduce()
		synctest.Wait()
		openBreaker(a, 2)
		if s := a.BreakerState(2); s != BreakerOpen {
			t.Fatalf("the breaker is %v after %d failures", s, breakerFailures)
		}
		v.net.Split(a.host, b.host)
		time.Sleep(3 * time.Second) // for both to give the connection up
		v.net.Heal(a.host, b.host)
		time.Sleep(2 * time.Second) // by itself it would be half-open, and stay so without calls
		if s := a.BreakerState(2); s != BreakerClosed {
			t.Errorf("the breaker is %v after the peer has connected", s)
		}
	})
}

func TestCallToNobody(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a := v.add(1, nil)
		a.SetPeers(map[Boot]Peer{2: {Node: "nobody", Addr: "10.0.0.9:1"}})
		if _, err := a.Call(t.Context(), 2, "x", nil); !errors.Is(err, ErrUnreachable) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Call(ctx, 2, "x", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		_ = a.Close()
		if _, err := a.Call(t.Context(), 2, "x", nil); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestBroadcastTellsWhoAnswered(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		var all []Boot
		for boot := Boot(1); boot <= 5; boot++ {
			all = append(all, boot)
			v.add(boot, nil).Handle("news", func(_ context.Context, from Boot, p []byte) ([]byte, error) {
				if boot == 4 {
					return nil, errors.New("not for me")
				}
				if from != 1 || string(p) != "payload" {
					t.Errorf("%v got %q from %v", boot, p, from)
				}
				return nil, nil
			})
		}
		v.introduce()
		time.Sleep(time.Second)
		v.net.Split(hostOf(1), hostOf(5))
		began := time.Now()
		acks := v.all[1].Broadcast(t.Context(), append(all, 9, 2), "news", []byte("payload"))
		var remote *RemoteError
		if len(acks) != 6 || acks[1] != nil || acks[2] != nil || acks[3] != nil || !errors.As(acks[4], &remote) ||
			acks[5] == nil || !errors.Is(acks[9], ErrUnknownPeer) {
			t.Errorf("got %v", acks)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
		openBreaker(v.all[1], 5)
		began = time.Now()
		if acks := v.all[1].Broadcast(t.Context(), all, "news", []byte("payload")); acks[5] == nil || acks[3] != nil {
			t.Errorf("got %v", acks)
		}
		if took := time.Since(began); took > doubtfulTime {
			t.Errorf("waited %v for a peer whose breaker is open", took)
		}
	})
}

func TestHandlerIsRemoved(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a := v.add(1, nil)
		a.Handle("x", func(_ context.Context, from Boot, p []byte) ([]byte, error) { return p, nil })
		if got, err := a.Call(t.Context(), 1, "x", []byte("self")); err != nil || string(got) != "self" {
			t.Fatalf("%q %v", got, err)
		}
		a.Handle("x", nil)
		if _, err := a.Call(t.Context(), 1, "x", nil); !errors.Is(err, ErrUnknownKind) {
			t.Fatal(err)
		}
	})
}
