package auth

import (
	"context"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peerlimit/peerlimit/cache"
	"github.com/peerlimit/peerlimit/cluster"
)

// fakeShared is a cache of all members. It never forgets by itself, and a delete can be made to be lost.
type fakeShared struct {
	mu          sync.Mutex // guards all below
	values      map[string][]byte
	ttls        map[string]time.Duration
	loseDeletes bool
	gets, sets  int
}

func newFakeShared() *fakeShared {
	return &fakeShared{values: map[string][]byte{}, ttls: map[string]time.Duration{}}
}

func (s *fakeShared) Get(_ context.Context, key string) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	v, ok := s.values[key]
	return v, ok, nil
}

func (s *fakeShared) Set(_ context.Context, key string, value []byte, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sets++
	s.values[key], s.ttls[key] = value, ttl
	return nil
}

func (s *fakeShared) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loseDeletes {
		delete(s.values, key)
	}
	return nil
}

func TestSharedCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newFakeShared()
		_, ms := newCluster(t, 3, func(c *Config) { c.Shared = shared })
		k, key := ms[0].create(t, Spec{Scopes: []string{"s"}, Metadata: map[string]string{"a": "b"}, Limits: map[string]Limit{"api": {1, time.Second, 2}}})
		p := ms[0].verifyFrom(t, key, Valid, FromStore).Principal
		synctest.Wait() // the value is handed on after the answer
		q := ms[1].verify(t, key, Valid).Principal
		if n := ms[1].store.lookups.Load(); n != 0 {
			t.Errorf("%d look-ups on the second member, want 0", n)
		}
		if q.ID != p.ID || !q.Has("s") || q.Metadata["a"] != "b" || q.Limits["api"] != p.Limits["api"] {
			t.Errorf("principal from the shared cache: %v %v %v %v", q, q.Scopes, q.Metadata, q.Limits)
		}
		for name, v := range shared.values {
			if strings.Contains(string(v)+name, key) || strings.Contains(string(v)+name, key[8:40]) {
				t.Error("the shared cache has the key itself")
			}
		}
		// A lost delete does not bring it back.
		shared.loseDeletes = true
		mustReceipt(t)(ms[0].Disable(t.Context(), k.ID))
		for _, m := range ms {
			m.verify(t, key, Disabled)
		}
	})
}

// A member that comes late knows from the record which values are from before a change.
func TestSharedValueFromBeforeAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newFakeShared()
		shared.loseDeletes = true
		memory := NewMemory()
		c := &fakeCluster{}
		withShared := func(c *Config) { c.Shared = shared }
		a := newMember(t, c, memory, withShared)
		k, key := a.create(t, Spec{})
		_, untouched := a.create(t, Spec{})
		a.verify(t, key, Valid)
		a.verify(t, untouched, Valid)
		synctest.Wait()
		old := shared.values[a.sharedKey(&k.Digest)]
		mustReceipt(t)(a.Delete(t.Context(), k.ID))
		if string(shared.values[a.sharedKey(&k.Digest)]) != string(old) {
			t.Fatal("the old value is gone; the test needs it")
		}
		late := newMember(t, c, memory, withShared)
		late.verify(t, key, NotFound)
		late.verify(t, untouched, Valid)
		if n := late.store.lookups.Load(); n != 1 {
			t.Errorf("%d look-ups, want 1: the other key's value is good", n)
		}
		// Of another incarnation of the record nothing can be told.
		c.mu.Lock()
		c.record = changelog{}
		c.mu.Unlock()
		later := newMember(t, c, memory, withShared)
		later.verify(t, untouched, Valid)
		if n := later.store.lookups.Load(); n != 1 {
			t.Errorf("%d look-ups, want 1", n)
		}
	})
}

func TestSharedValueAgesAndExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newFakeShared()
		memory := NewMemory()
		c := &fakeCluster{}
		withShared := func(c *Config) { c.Shared = shared }
		a := newMember(t, c, memory, withShared)
		k1, expiring := a.create(t, Spec{ExpiresAt: time.Now().Add(2 * time.Minute)})
		k2, lasting := a.create(t, Spec{})
		a.verify(t, expiring, Valid)
		a.verify(t, lasting, Valid)
		synctest.Wait()
		if ttl := shared.ttls[a.sharedKey(&k1.Digest)]; ttl > 2*time.Minute {
			t.Errorf("kept for %v, past the key's expiry", ttl)
		}
		if ttl := shared.ttls[a.sharedKey(&k2.Digest)]; ttl != 10*time.Minute {
			t.Errorf("kept for %v, want fresh and stale time", ttl)
		}
		time.Sleep(4 * time.Minute)
		b := newMember(t, c, memory, withShared)
		b.verify(t, expiring, Expired)
		b.verify(t, lasting, Valid)
		if n := b.store.lookups.Load(); n != 0 {
			t.Errorf("%d look-ups, want 0", n)
		}
		time.Sleep(time.Minute) // 5 minutes after it was read, not after b got it
		b.verifyFrom(t, lasting, Valid, FromStore)

		// The store goes down, and a member starts that knows nothing.
		time.Sleep(6 * time.Minute)
		d := newMember(t, c, memory, withShared)
		d.verify(t, "unknown-to-all", NotFound) // it has its records
		d.store.down.Store(true)
		time.Sleep(time.Second)
		if r := d.verify(t, lasting, Valid); !r.Stale {
			t.Error("a value of 6 minutes was not marked as stale")
		}
	})
}

func TestClusterKVIsAShared(t *testing.T) {
	s, ctx := kvShared{cluster.LocalKV(0)}, t.Context()
	if _, ok, err := s.Get(ctx, "auth:k"); ok || err != nil {
		t.Errorf("nothing yet: %v, %v", ok, err)
	}
	if err := s.Set(ctx, "auth:k", []byte("v"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if v, ok, err := s.Get(ctx, "auth:k"); !ok || err != nil || string(v) != "v" {
		t.Errorf("got %q, %v, %v", v, ok, err)
	}
	if err := s.Delete(ctx, "auth:k"); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Get(ctx, "auth:k"); ok || err != nil {
		t.Errorf("after the delete: %v, %v", ok, err)
	}
}

// A cache of package cache is a Shared too.
var _ Shared = (*cache.Cache[[]byte])(nil)

func TestDecodeSharedRefuses(t *testing.T) {
	k := Key{ID: "key_1", Digest: DigestOf("a"), Project: "p", Metadata: map[string]string{"x": "y"}}
	good, err := encodeShared(&k, time.Now(), knowledge{})
	if err != nil {
		t.Fatal(err)
	}
	other := DigestOf("b")
	for name, test := range map[string]struct {
		b []byte
		d *Digest
	}{
		"another key's": {good, &other},
		"empty":         {nil, &k.Digest},
		"truncated":     {good[:len(good)-1], &k.Digest},
		"version":       {[]byte(strings.Replace(string(good), `"v":1`, `"v":2`, 1)), &k.Digest},
		"no ID":         {[]byte(strings.Replace(string(good), `"key_1"`, `""`, 1)), &k.Digest},
		"too large":     {append(good, make([]byte, maxSharedValue)...), &k.Digest},
	} {
		if _, _, _, err := decodeShared(test.b, test.d); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got, _, _, err := decodeShared(good, &k.Digest); err != nil || got.Metadata["x"] != "y" {
		t.Errorf("the good one: %v, %v", got, err)
	}
}

func FuzzDecodeShared(f *testing.F) {
	k := Key{ID: "key_1", Digest: DigestOf("a"), Project: "p", ExpiresAt: time.Unix(1, 0)}
	good, _ := encodeShared(&k, time.Unix(2, 0), knowledge{1, 2, 3, math.MaxUint64})
	f.Add(good)
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, read, known, err := decodeShared(b, &k.Digest)
		if err != nil {
			return
		}
		again, err := encodeShared(&got, read, known)
		if err != nil {
			t.Skip() // a year that JSON can't write
		}
		if _, _, known2, err := decodeShared(again, &k.Digest); err != nil || known2.position != known.position {
			t.Fatalf("%s decoded, encoded to %s: %v", b, again, err)
		}
	})
}
