package auth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// revocations are the ways to take something from a key. Each returns which verdict, or lack of a scope, shows it.
var revocations = []struct {
	name string
	do   func(context.Context, *Authenticator, string) (Receipt, error)
	want Verdict
}{
	{"disable", func(ctx context.Context, a *Authenticator, id string) (Receipt, error) { return a.Disable(ctx, id) }, Disabled},
	{"delete", func(ctx context.Context, a *Authenticator, id string) (Receipt, error) { return a.Delete(ctx, id) }, NotFound},
	{"rotate", func(ctx context.Context, a *Authenticator, id string) (Receipt, error) {
		r, err := a.Rotate(ctx, id, 0)
		return r.Receipt, err
	}, Expired},
	{"take a scope away", func(ctx context.Context, a *Authenticator, id string) (Receipt, error) {
		_, r, err := a.Update(ctx, id, Patch{Scopes: &[]string{}})
		return r, err
	}, Valid},
}

func TestRevocationReachesAll(t *testing.T) {
	for _, revocation := range revocations {
		t.Run(revocation.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, ms := newCluster(t, 3)
				k, key := ms[0].create(t, Spec{Scopes: []string{"s"}})
				for _, m := range ms {
					m.verifyFrom(t, key, Valid, FromStore)
					m.verifyFrom(t, key, Valid, FromNear)
				}
				r := mustReceipt(t)(revocation.do(t.Context(), ms[1].Authenticator, k.ID))
				if r.Reached != 3 || r.Members != 3 || len(r.Unreached) != 0 || r.Took > 100*time.Millisecond {
					t.Errorf("receipt %+v", r)
				}
				for _, m := range ms {
					if got := m.verify(t, key, revocation.want); got.Principal.Has("s") {
						t.Error("the scope is still there")
					}
				}
			})
		})
	}
}

// Whatever else is lost, nobody accepts the key when the call has returned, and the receipt says who was not reached.
func TestRevocationWithUnreachedMember(t *testing.T) {
	for _, fault := range []struct {
		name string
		set  func(m *member, on bool)
		// after is what the member says when the call has returned and the fault is still there.
		after Verdict
	}{
		{"deaf", func(m *member, on bool) { m.net.deaf.Store(on) }, Disabled},
		{"cut off from the members", func(m *member, on bool) { m.net.cut.Store(on) }, Disabled},
		{"cut off from members and store", func(m *member, on bool) { m.net.cut.Store(on); m.store.hang.Store(on) }, Unavailable},
	} {
		t.Run(fault.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, ms := newCluster(t, 3)
				k, key := ms[0].create(t, Spec{})
				for _, m := range ms {
					m.verify(t, key, Valid)
					m.verifyFrom(t, key, Valid, FromNear)
				}
				fault.set(ms[2], true)
				done := make(chan struct{})
				go func() { // it goes on verifying, and so confirming
					for {
						select {
						case <-done:
							return
						case <-time.After(10 * time.Millisecond):
							_, _ = ms[2].Verify(context.Background(), key)
						}
					}
				}()
				r := mustReceipt(t)(ms[0].Disable(t.Context(), k.ID))
				if r.Reached != 2 || r.Members != 3 || len(r.Unreached) != 1 || r.Unreached[0] != "node-2" {
					t.Errorf("receipt %+v", r)
				}
				if r.Took < time.Second || r.Took > 1300*time.Millisecond {
					t.Errorf("took %v, want to have waited for the confirmations to run out", r.Took)
				}
				ms[0].verify(t, key, Disabled)
				ms[1].verify(t, key, Disabled)
				ms[2].verify(t, key, fault.after)
				close(done)
				fault.set(ms[2], false)
				ms[2].verify(t, key, Disabled)
				time.Sleep(time.Second)
				ms[2].verify(t, key, Disabled)
			})
		})
	}
}

// A member whose goroutines all stand still for 15 s, as with SIGSTOP, and is asked as soon as it runs again.
func TestStoppedMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 2)
		k, key := ms[0].create(t, Spec{})
		_, other := ms[0].create(t, Spec{})
		for range 2 {
			ms[1].verify(t, key, Valid)
			ms[1].verify(t, other, Valid)
		}
		ms[1].net.cut.Store(true)
		ms[1].store.hang.Store(true)
		r := mustReceipt(t)(ms[0].Disable(t.Context(), k.ID))
		if len(r.Unreached) != 1 {
			t.Errorf("receipt %+v, want one unreached", r)
		}
		time.Sleep(15 * time.Second)
		ms[1].net.cut.Store(false)
		ms[1].store.hang.Store(false)
		reads := ms[1].store.lookups.Load()
		ms[1].verify(t, key, Disabled)
		ms[1].verify(t, other, Valid)
		if n := ms[1].store.lookups.Load() - reads; n > 2 {
			t.Errorf("%d look-ups of 2 keys", n)
		}
		time.Sleep(time.Second)
		ms[1].verify(t, key, Disabled)
		ms[1].verifyFrom(t, other, Valid, FromNear)
	})
}

// The interleaving of DESIGN.md, "A reading that began before the change".
func TestReadingFromBeforeTheChangeIsNotKept(t *testing.T) {
	for _, revocation := range revocations {
		t.Run(revocation.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, ms := newCluster(t, 2)
				k, key := ms[0].create(t, Spec{Scopes: []string{"s"}})
				for _, m := range ms {
					m.verify(t, "warm-up-the-confirmation", NotFound)
				}
				// The verification reads the store and is held before it gets the answer.
				read, release := make(chan struct{}), make(chan struct{})
				hold := func() {
					ms[0].store.lookedUp.Store(nil)
					close(read)
					<-release
				}
				ms[0].store.lookedUp.Store(&hold)
				result := make(chan Result, 1)
				go func() {
					r, _ := ms[0].Verify(context.Background(), key)
					result <- r
				}()
				<-read
				mustReceipt(t)(revocation.do(t.Context(), ms[1].Authenticator, k.ID))

				// Who asks now must not be handed what the held reading has.
				late := make(chan Result, 1)
				go func() {
					r, _ := ms[0].Verify(context.Background(), key)
					late <- r
				}()
				synctest.Wait()
				close(release)
				for who, c := range map[string]chan Result{"the one held": result, "the one after": late} {
					if r := <-c; r.Verdict != revocation.want || r.Principal.Has("s") {
						t.Errorf("%s: verdict %v, scope kept: %v, want %v", who, r.Verdict, r.Principal.Has("s"), revocation.want)
					}
				}
				if r := ms[0].verify(t, key, revocation.want); r.Principal.Has("s") {
					t.Error("the old state is in the cache")
				}
			})
		})
	}
}

// A reading under way on a member that was not told: who comes after the revocation returned must not use it.
func TestLateCallerDoesNotJoinAnOldReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 2, func(c *Config) { c.StoreTimeout = time.Minute })
		k, key := ms[0].create(t, Spec{})
		ms[1].verify(t, "warm-up-the-confirmation", NotFound)
		read, release := make(chan struct{}), make(chan struct{})
		hold := func() {
			ms[1].store.lookedUp.Store(nil)
			close(read)
			<-release
		}
		ms[1].store.lookedUp.Store(&hold)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = ms[1].Verify(context.Background(), key) })
		<-read
		ms[1].net.cut.Store(true) // neither broadcast nor record
		ms[1].store.pollsFail.Store(true)
		mustReceipt(t)(ms[0].Disable(t.Context(), k.ID))
		wg.Go(func() {
			if r, err := ms[1].Verify(context.Background(), key); r.Verdict != Disabled {
				t.Errorf("who came after: %v, %v, want %v", r.Verdict, err, Disabled)
			}
		})
		synctest.Wait()
		close(release)
		wg.Wait()
	})
}

// The same for a key that was not known when the store was read, and then imported.
func TestReadingFromBeforeAnImportIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 2)
		ms[0].verify(t, "warm-up-the-confirmation", NotFound)
		read, release := make(chan struct{}), make(chan struct{})
		hold := func() {
			ms[0].store.lookedUp.Store(nil)
			close(read)
			<-release
		}
		ms[0].store.lookedUp.Store(&hold)
		foreign := NewSecret("a-key-made-elsewhere")
		var wg sync.WaitGroup
		wg.Go(func() { ms[0].verify(t, foreign.Reveal(), Valid) })
		<-read
		if _, _, err := ms[1].Import(t.Context(), Import{Spec: Spec{Project: "shop"}, Key: foreign}); err != nil {
			t.Fatal(err)
		}
		close(release)
		wg.Wait()
		ms[0].verify(t, foreign.Reveal(), Valid)
	})
}

func TestChangesThatGive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 3)
		k, key := ms[0].create(t, Spec{})
		mustReceipt(t)(ms[0].Disable(t.Context(), k.ID))
		foreign := NewSecret("a-key-made-elsewhere")
		for _, m := range ms {
			m.verify(t, key, Disabled)
			m.verifyFrom(t, key, Disabled, FromNear)
			m.verify(t, foreign.Reveal(), NotFound)
			m.verifyFrom(t, foreign.Reveal(), NotFound, FromNear)
		}
		mustReceipt(t)(ms[1].Enable(t.Context(), k.ID))
		imported, r, err := ms[2].Import(t.Context(), Import{Spec: Spec{Project: "shop"}, Key: foreign})
		if err != nil || r.Reached != 3 {
			t.Fatalf("%+v, %v", r, err)
		}
		for _, m := range ms {
			m.verify(t, key, Valid)
			if p := m.verify(t, foreign.Reveal(), Valid).Principal; p.ID != imported.ID {
				t.Errorf("principal %v, want %s", p, imported.ID)
			}
		}
	})
}

// The record can't be written: the change is stored and told, and the error says what is missing.
func TestNotAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 2)
		k, key := ms[0].create(t, Spec{})
		ms[1].verify(t, key, Valid)
		ms[0].net.recordFails.Store(true)
		ms[1].net.deaf.Store(true)
		r, err := ms[0].Disable(t.Context(), k.ID)
		if !errors.Is(err, ErrNotAnnounced) || r.Reached != 1 {
			t.Errorf("%+v, %v, want %v", r, err, ErrNotAnnounced)
		}
		ms[1].verify(t, key, Disabled) // the store told it
	})
}

func TestRevocationGoesOnWithoutItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 3)
		k, key := ms[0].create(t, Spec{})
		for _, m := range ms {
			m.verify(t, key, Valid)
		}
		ms[2].net.deaf.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		ms[0].store.delays(func() time.Duration { return 10 * time.Millisecond })
		go func() {
			time.Sleep(15 * time.Millisecond) // the store has it
			cancel()
		}()
		r, err := ms[0].Disable(ctx, k.ID)
		if !errors.Is(err, context.Canceled) || r.Reached != 2 {
			t.Errorf("%+v, %v", r, err)
		}
		ms[1].verify(t, key, Disabled)
	})
}

// Two sides of a split, each with a record of its own and one store. Then they are merged.
func TestSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemory()
		near, far := &fakeCluster{}, &fakeCluster{}
		a, b := newMember(t, near, memory), newMember(t, far, memory)
		k1, key1 := a.create(t, Spec{})
		k2, key2 := a.create(t, Spec{})
		_, key3 := a.create(t, Spec{})
		for _, m := range []*member{a, b} {
			for _, key := range []string{key1, key2, key3} {
				m.verify(t, key, Valid)
			}
		}
		mustReceipt(t)(a.Disable(t.Context(), k1.ID)) // b is not even a member here
		time.Sleep(settleFor)
		b.verify(t, key1, Disabled)
		b.verify(t, key3, Valid)

		// b loses the store too. As long as it misses a, its own record confirms nothing.
		b.verifyFrom(t, key2, Valid, FromNear)
		b.net.misses(true)
		b.store.down.Store(true)
		time.Sleep(time.Second)
		mustReceipt(t)(a.Disable(t.Context(), k2.ID))
		b.verify(t, key2, Unavailable)
		b.verify(t, key3, Unavailable)

		// Healed: one record. What was cached before is dropped, whoever's record went on.
		merged := changelogMachine{}.Merge(near.record, far.record)
		for _, c := range []*fakeCluster{near, far} {
			c.mu.Lock()
			c.record = merged
			c.mu.Unlock()
		}
		drops := a.Stats().Drops
		b.net.misses(false)
		b.verify(t, key2, Unavailable) // the record it has read so far is its own side's
		b.store.down.Store(false)
		for _, m := range []*member{a, b} {
			m.verify(t, key1, Disabled)
			m.verify(t, key2, Disabled)
			m.verify(t, key3, Valid)
		}
		time.Sleep(time.Second)
		a.verify(t, key3, Valid)
		if a.Stats().Drops != drops+1 {
			t.Errorf("%d drops after the merge, want 1", a.Stats().Drops-drops)
		}
	})
}

// A member that is confirmed by its record while the store is down, and then by neither.
func TestNothingConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		_, key := m.create(t, Spec{})
		for range 2 {
			m.verify(t, key, Valid)
		}
		m.net.recordFails.Store(true)
		time.Sleep(time.Second)
		m.verifyFrom(t, key, Valid, FromStore) // unconfirmed: the store is asked, each time
		m.verifyFrom(t, key, Valid, FromStore)
		m.store.down.Store(true)
		m.verify(t, key, Unavailable)
		m.net.recordFails.Store(false)
		time.Sleep(time.Second)
		m.verifyFrom(t, key, Valid, FromNear)
	})
}

func TestIdleMemberAsksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		_, key := m.create(t, Spec{})
		m.verify(t, key, Valid)
		time.Sleep(10 * time.Second)
		polls := m.store.polls.Load()
		time.Sleep(time.Hour)
		if n := m.store.polls.Load() - polls; n != 0 {
			t.Errorf("%d questions in an idle hour", n)
		}
		m.verify(t, key, Valid) // and wakes up without losing what it has read within 5 minutes
		for range 100 {
			m.verifyFrom(t, key, Valid, FromNear)
			time.Sleep(100 * time.Millisecond)
		}
		if n := m.store.polls.Load() - polls; n < 25 || n > 32 {
			t.Errorf("%d questions in 10 s, want one each 350 ms", n)
		}
	})
}

// What an answer does not have happened after the question was sent, not after the answer came.
func TestConfirmationIsDatedToItsQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ms := newCluster(t, 1)
		m := ms[0]
		slow := func() time.Duration { return 100 * time.Millisecond }
		c.delays(slow)
		m.store.delays(slow)
		time.Sleep(10 * time.Second) // its own rounds have ended: it is idle
		asked := m.clock.read()
		for _, round := range []func(context.Context) error{m.readTable, m.readStore} {
			if err := round(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if *m.confirmed.table != asked || m.confirmed.store.mono != asked.mono+int64(200*time.Millisecond) {
			t.Errorf("confirmed by the record at %v and by the store at %v, asked at %v and 200 ms later",
				m.confirmed.table.mono, m.confirmed.store.mono, asked.mono)
		}
	})
}

// The worst moment to be stopped: with the entry in hand. When the process runs again it is confirmed anew before
// the verification goes on.
func TestStoppedWithTheEntryInHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, memory := &fakeCluster{}, NewMemory()
		var stop atomic.Pointer[func()] // what happens when the clock is read next
		a := newMember(t, c, memory)
		b := newMember(t, c, memory, func(c *Config) {
			c.Now = func() time.Time {
				if f := stop.Swap(nil); f != nil {
					(*f)()
				}
				return time.Now()
			}
		})
		k, key := a.create(t, Spec{})
		for range 2 {
			b.verify(t, key, Valid)
		}
		synctest.Wait()
		stopped := func() {
			b.net.cut.Store(true)
			b.store.hang.Store(true)
			mustReceipt(t)(a.Disable(context.Background(), k.ID))
			time.Sleep(15 * time.Second)
			b.net.cut.Store(false)
			b.store.hang.Store(false)
			for _, round := range []func(context.Context) error{b.readTable, b.readStore} {
				if err := round(context.Background()); err != nil {
					t.Error(err)
				}
			}
			if !b.confirmed.load().fresh(b.clock.read()) {
				t.Error("not confirmed again; the test needs it")
			}
		}
		stop.Store(&stopped)
		b.verify(t, key, Disabled)
	})
}

// Both clocks count: the monotonic one stands still while the machine sleeps, the wall clock may be set.
func TestClocksOfAConfirmation(t *testing.T) {
	const s = int64(time.Second)
	at := moment{mono: 100 * s, wall: 1000 * s}
	for _, test := range []struct {
		name string
		now  moment
		want bool
	}{
		{"at once", at, true},
		{"just in time", moment{101*s - 1, 1001*s - 1}, true},
		{"a second later", moment{101 * s, 1001 * s}, false},
		{"the machine slept", moment{100*s + 1, 1060 * s}, false},
		{"wall clock set forward", moment{100*s + 1, 4600 * s}, false},
		{"wall clock set back", moment{100*s + 1, 999 * s}, false},
		{"the process was stopped, and the wall clock set back", moment{160 * s, 1000*s + 1}, false},
		{"from after now", moment{99 * s, 999 * s}, false},
	} {
		if got := at.fresh(test.now); got != test.want {
			t.Errorf("%s: fresh %v, want %v", test.name, got, test.want)
		}
	}
	if (*moment)(nil).fresh(at) {
		t.Error("no confirmation is fresh")
	}
}

// Revoke at a random moment while callers verify on each of three members, with random delays and lost messages:
// whoever asks after the call has returned is refused. 1,000 seeds; a failing one is named and can be run alone by
// AUTH_SEED. Each member has 16 callers, and 64 where PEERLIMIT_SOAK is set.
func TestRevokeWhileVerifying(t *testing.T) {
	seeds := 50
	if os.Getenv("PEERLIMIT_SOAK") != "" {
		seeds = 1000
	}
	first := uint64(0)
	if s := os.Getenv("AUTH_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, seeds = n, 1
	}
	var after, before, unreached atomic.Int64
	for seed := first; seed < first+uint64(seeds) && !t.Failed(); seed++ {
		synctest.Test(t, func(t *testing.T) { revokeWhileVerifying(t, seed, &before, &after, &unreached) })
	}
	t.Logf("%d seeds: %d verifications VALID before, %d refused after the call returned, %d revocations with a member unreached",
		seeds, before.Load(), after.Load(), unreached.Load())
	if before.Load() == 0 || after.Load() == 0 || unreached.Load() == 0 {
		t.Error("nothing was tested")
	}
}

func revokeWhileVerifying(t *testing.T, seed uint64, before, after, unreached *atomic.Int64) {
	const members = 3
	callers := 16
	if os.Getenv("PEERLIMIT_SOAK") != "" {
		callers = 64
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	revocation := revocations[rng.IntN(len(revocations))]
	shared := newFakeShared()
	withShared := rng.IntN(2) == 0
	c, ms := newCluster(t, members, func(c *Config) {
		if withShared {
			c.Shared = shared
		}
	})
	c.delays(random(rand.New(rand.NewPCG(seed, 2)), 5*time.Millisecond))
	slow := time.Millisecond * time.Duration(1+rng.IntN(20))
	for i, m := range ms {
		m.store.delays(random(rand.New(rand.NewPCG(seed, 10+uint64(i))), slow))
	}
	k, key := ms[0].create(t, Spec{Scopes: []string{"s"}})
	// Faults, at one member that is not the one that revokes.
	switch victim := ms[1+rng.IntN(members-1)]; rng.IntN(8) {
	case 0:
		victim.net.deaf.Store(true)
	case 1:
		victim.net.cut.Store(true)
	case 2:
		victim.net.deaf.Store(true)
		victim.store.down.Store(true)
	case 3:
		ms[0].net.recordFails.Store(true)
	}

	var returned atomic.Bool
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i, m := range ms {
		for j := range callers {
			pause := random(rand.New(rand.NewPCG(seed, 100+uint64(i*callers+j))), 3*time.Millisecond)
			wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					late := returned.Load()
					r, _ := m.Verify(context.Background(), key)
					accepted := r.Verdict == Valid && r.Principal.Has("s")
					switch {
					case accepted && late:
						t.Errorf("seed %d: %s after %s: %v from %v", seed, m.net.name, revocation.name, r.Verdict, r.Source)
					case accepted:
						before.Add(1)
					case late:
						after.Add(1)
					}
					d := pause()
					if n > 100 {
						d *= 10 // a member is waited for; enough was seen of this
					}
					_ = sleep(ctx, d)
				}
			})
		}
	}
	time.Sleep(time.Duration(rng.Int64N(int64(80 * time.Millisecond))))
	r, err := revocation.do(context.Background(), ms[0].Authenticator, k.ID)
	if err != nil && !errors.Is(err, ErrNotAnnounced) {
		t.Errorf("seed %d: %v", seed, err)
	}
	returned.Store(true)
	if len(r.Unreached) > 0 {
		unreached.Add(1)
	}
	time.Sleep(time.Duration(rng.Int64N(int64(60 * time.Millisecond))))
	cancel()
	wg.Wait()
	if t.Failed() {
		fmt.Printf("failed with AUTH_SEED=%d\n", seed)
	}
}
