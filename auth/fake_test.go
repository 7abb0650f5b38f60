package auth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

var errInjected = errors.New("injected")

// faultyStore is a store in memory behind a network that delays and fails.
type faultyStore struct {
	*Memory
	delay atomic.Pointer[func() time.Duration] // before and after each call
	down  atomic.Bool
	// hang: calls wait until their context is done, as with a server that swallows packets.
	hang atomic.Bool

	// pollsFail: Changes fails, all else works.
	pollsFail atomic.Bool

	lookups, polls atomic.Int64
	// lookedUp, where set, is called between reading the store and returning what was read.
	lookedUp atomic.Pointer[func()]
}

func newFaultyStore() *faultyStore { return &faultyStore{Memory: NewMemory()} }

func (s *faultyStore) travel(ctx context.Context) error {
	if s.hang.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if s.down.Load() {
		return errInjected
	}
	if d := s.delay.Load(); d != nil {
		return sleep(ctx, (*d)())
	}
	return ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *faultyStore) Lookup(ctx context.Context, d Digest) (Key, error) {
	s.lookups.Add(1)
	if err := s.travel(ctx); err != nil {
		return Key{}, err
	}
	k, err := s.Memory.Lookup(ctx, d)
	if f := s.lookedUp.Load(); f != nil {
		(*f)()
	}
	if err := s.travel(ctx); err != nil {
		return Key{}, err
	}
	return k, err
}

func (s *faultyStore) Changes(ctx context.Context, after uint64, limit int) (Changes, error) {
	s.polls.Add(1)
	if s.pollsFail.Load() {
		return Changes{}, errInjected
	}
	if err := s.travel(ctx); err != nil {
		return Changes{}, err
	}
	c, err := s.Memory.Changes(ctx, after, limit)
	if err := s.travel(ctx); err != nil {
		return Changes{}, err
	}
	return c, err
}

func (s *faultyStore) Change(ctx context.Context, id string, r Record, edit func(*Key) (*Key, error)) (Key, error) {
	if err := s.travel(ctx); err != nil {
		return Key{}, err
	}
	k, err := s.Memory.Change(ctx, id, r, edit)
	if d := s.delay.Load(); d != nil {
		_ = sleep(ctx, (*d)())
	}
	return k, err
}

func (s *faultyStore) Delete(ctx context.Context, id string, r Record) (Key, error) {
	if err := s.travel(ctx); err != nil {
		return Key{}, err
	}
	k, err := s.Memory.Delete(ctx, id, r)
	if d := s.delay.Load(); d != nil {
		_ = sleep(ctx, (*d)())
	}
	return k, err
}

func (s *faultyStore) Touch(ctx context.Context, uses []Use) error {
	if s.down.Load() {
		return errInjected
	}
	return s.Memory.Touch(ctx, uses)
}

// fakeCluster is one side of a network: members that share a record of changes and hear each other's broadcasts.
type fakeCluster struct {
	delay atomic.Pointer[func() time.Duration]

	mu      sync.Mutex // guards all below
	record  changelog
	members []*fakeMember
}

type fakeMember struct {
	name    string
	cluster *fakeCluster

	// cut: nothing goes in or out, and that shows at once.
	cut atomic.Bool
	// deaf: broadcasts don't arrive, all else does; that shows by nobody answering.
	deaf atomic.Bool
	// recordFails: the record can't be read or written from here.
	recordFails atomic.Bool
	missing     atomic.Bool // this member misses others

	mu      sync.Mutex // guards all below
	f       func([]byte)
	changed func()
}

func (c *fakeCluster) join(name string) *fakeMember {
	m := &fakeMember{name: name, cluster: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = append(c.members, m)
	return m
}

func (c *fakeCluster) travel(ctx context.Context) error {
	if d := c.delay.Load(); d != nil {
		return sleep(ctx, (*d)())
	}
	return ctx.Err()
}

func (m *fakeMember) changelog(ctx context.Context, op changelogOp) (changelogResult, error) {
	if err := m.cluster.travel(ctx); err != nil {
		return changelogResult{}, err
	}
	if m.cut.Load() || m.recordFails.Load() {
		_ = sleep(ctx, 250*time.Millisecond)
		return changelogResult{}, cluster.ErrUnavailable
	}
	m.cluster.mu.Lock()
	var r changelogResult
	m.cluster.record, r, _ = changelogMachine{}.Apply(cluster.Call{Now: 1}, m.cluster.record, op)
	m.cluster.mu.Unlock()
	if err := m.cluster.travel(ctx); err != nil {
		return changelogResult{}, err
	}
	if m.cut.Load() {
		return changelogResult{}, cluster.ErrUncertain
	}
	return r, nil
}

func (m *fakeMember) handle(_ string, f func([]byte)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.f = f
}

func (m *fakeMember) broadcast(ctx context.Context, _ string, payload []byte) Receipt {
	m.cluster.mu.Lock()
	members := slices.Clone(m.cluster.members)
	m.cluster.mu.Unlock()
	r := Receipt{Members: len(members)}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, to := range members {
		wg.Go(func() {
			err := to.receive(ctx, m, payload)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				r.Unreached = append(r.Unreached, to.name)
				return
			}
			r.Reached++
		})
	}
	wg.Wait()
	slices.Sort(r.Unreached)
	return r
}

func (m *fakeMember) receive(ctx context.Context, from *fakeMember, payload []byte) error {
	if m != from {
		if err := m.cluster.travel(ctx); err != nil {
			return err
		}
		if m.deaf.Load() {
			<-ctx.Done()
			return ctx.Err()
		}
		if m.cut.Load() || from.cut.Load() {
			return cluster.ErrUnreachable
		}
	}
	m.mu.Lock()
	f := m.f
	m.mu.Unlock()
	if f != nil {
		f(payload)
	}
	if m == from {
		return nil
	}
	return m.cluster.travel(ctx)
}

func (m *fakeMember) watch(f func()) func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = f
	return func() {}
}

func (m *fakeMember) whole() bool { return !m.missing.Load() }

// misses sets whether this member misses others.
func (m *fakeMember) misses(b bool) {
	m.missing.Store(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed()
}

// member is an Authenticator on a fake cluster.
type member struct {
	*Authenticator
	net   *fakeMember
	store *faultyStore
}

// newMember starts one. Its store may be the same memory as others', behind a network of its own.
func newMember(t testing.TB, c *fakeCluster, memory *Memory, change ...func(*Config)) *member {
	t.Helper()
	c.mu.Lock()
	name := fmt.Sprintf("node-%d", len(c.members))
	c.mu.Unlock()
	m := &member{net: c.join(name), store: &faultyStore{Memory: memory}}
	cfg := Config{Store: m.store, peers: m.net, changelog: m.net.changelog, LastUsedEvery: -1}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if m.Authenticator, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// newCluster starts n members on one store.
func newCluster(t testing.TB, n int, change ...func(*Config)) (*fakeCluster, []*member) {
	t.Helper()
	c, memory := &fakeCluster{}, NewMemory()
	members := make([]*member, n)
	for i := range members {
		members[i] = newMember(t, c, memory, change...)
	}
	return c, members
}

// create makes a key and returns it with its secret.
func (m *member) create(t testing.TB, s Spec) (Key, string) {
	t.Helper()
	if s.Project == "" {
		s.Project = "shop"
	}
	issued, err := m.Create(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	return issued.Key, issued.Secret.Reveal()
}

// verify checks the verdict and returns the result.
func (m *member) verify(t testing.TB, key string, want Verdict) Result {
	t.Helper()
	r, err := m.Verify(context.Background(), key)
	if r.Verdict != want || (err != nil) != (want == Unavailable) {
		t.Fatalf("%s: verdict %v (%v, %v), want %v", m.net.name, r.Verdict, r.Source, err, want)
	}
	if (r.Principal != nil) != (want == Valid) {
		t.Fatalf("verdict %v with principal %v", r.Verdict, r.Principal)
	}
	return r
}

// verifyFrom checks verdict and source.
func (m *member) verifyFrom(t testing.TB, key string, want Verdict, from Source) Result {
	t.Helper()
	r := m.verify(t, key, want)
	if r.Source != from || r.Cached != (from == FromNear) {
		t.Fatalf("%s: %v from %v (cached %v), want from %v", m.net.name, r.Verdict, r.Source, r.Cached, from)
	}
	return r
}

// random returns delays up to most, from a source that many may use.
func random(rng *rand.Rand, most time.Duration) func() time.Duration {
	var mu sync.Mutex
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(rng.Int64N(int64(most)) + 1)
	}
}

func (c *fakeCluster) delays(f func() time.Duration) { c.delay.Store(&f) }

func (s *faultyStore) delays(f func() time.Duration) { s.delay.Store(&f) }

func mustReceipt(t testing.TB) func(Receipt, error) Receipt {
	return func(r Receipt, err error) Receipt {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}
