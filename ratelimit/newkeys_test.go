package ratelimit

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func (l *Limiter) allowFrom(t *testing.T, p Policy, key, addr string) Decision {
	t.Helper()
	from := source{addr: netip.MustParseAddr(addr)}
	var d Decision
	_, err := l.decide(context.Background(), &p, key, opTake, 1, &from, &d)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A source that makes keys up ends in one bucket; keys that are in use, and
// other sources, notice nothing.
func TestMadeUpKeysShareABucket(t *testing.T) {
	l, clock := alone(t, func(c *Config) { c.NewKeysPerMinute = 10 })
	ctx := context.Background()
	p := PerHour("key", 3)
	if d := l.allowFrom(t, p, "mine", "203.0.113.1"); !d.Allowed {
		t.Fatalf("%+v", d)
	}
	allowed, shared := 0, 0
	for i := range 1000 {
		d := l.allowFrom(t, p, fmt.Sprint("made-up-", i), fmt.Sprintf("203.0.113.%d", i%256))
		if d.Allowed {
			allowed++
		}
		if d.Reason == ReasonNewKeys {
			shared++
		}
	}
	if allowed != 9+3 || shared != 991 {
		t.Errorf("%d allowed, %d in the shared bucket", allowed, shared)
	}
	if n, _ := l.Size(ctx); n != 11 {
		t.Errorf("%d keys in memory", n)
	}
	if n := l.Stats().NewKeysCapped; n != 991 {
		t.Errorf("%d counted", n)
	}
	if d := l.allowFrom(t, p, "mine", "203.0.113.1"); !d.Allowed || d.Reason != "" || d.Remaining != 1 {
		t.Errorf("a key in use: %+v", d)
	}
	if d := l.allowFrom(t, p, "theirs", "198.51.100.1"); !d.Allowed || d.Reason != "" {
		t.Errorf("another source: %+v", d)
	}
	if d := l.allowFrom(t, PerHour("other", 3), "k", "203.0.113.1"); !d.Allowed || d.Reason != "" {
		t.Errorf("another policy: %+v", d)
	}
	clock.advance(time.Minute)
	if d := l.allowFrom(t, p, "late", "203.0.113.1"); !d.Allowed || d.Reason != "" {
		t.Errorf("a minute later: %+v", d)
	}
	for i := range 20 {
		l.allowFrom(t, p, fmt.Sprint("six-", i), fmt.Sprintf("2001:db8:1:%x::1", i))
	}
	if d := l.allowFrom(t, p, "six", "2001:db8:1:ffff::1"); d.Reason != ReasonNewKeys {
		t.Errorf("IPv6 by /48: %+v", d)
	}
}

// The same through several policies at once.
func TestMadeUpKeysAllOrNothing(t *testing.T) {
	l, _ := alone(t, func(c *Config) { c.NewKeysPerMinute = 5 })
	ctx := context.Background()
	p, q := PerHour("p", 100), PerHour("q", 3)
	allowed := 0
	for i := range 50 {
		addr := netip.MustParseAddr("203.0.113.7")
		parts := []part{
			{policy: p, key: "fixed", cost: 1, from: source{addr: addr}},
			{policy: q, key: fmt.Sprint(i), cost: 1, from: source{addr: addr}},
		}
		ok, err := l.allowAll(ctx, parts)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			allowed++
		}
	}
	if d, _ := l.Status(ctx, p, "fixed"); allowed != 5+3 || d.Remaining != 92 {
		t.Errorf("%d allowed, %+v", allowed, d)
	}
}

// Keys of a short policy come and go, and fill nothing.
func TestShortLivedKeysHardlyCount(t *testing.T) {
	l, clock := alone(t, func(c *Config) { c.NewKeysPerMinute = 10 })
	p := PerSecond("p", 10)
	for i := range 300 {
		if d := l.allowFrom(t, p, "k", "203.0.113.7"); !d.Allowed || d.Reason != "" {
			t.Fatalf("%d: %+v", i, d)
		}
		clock.advance(150 * time.Millisecond)
	}
}

func TestNoCapOnNewKeys(t *testing.T) {
	l, _ := alone(t, func(c *Config) { c.NewKeysPerMinute = -1 })
	p := PerHour("p", 3)
	for i := range 1000 {
		if d := l.allowFrom(t, p, fmt.Sprint(i), "203.0.113.7"); !d.Allowed || d.Reason != "" {
			t.Fatalf("%+v", d)
		}
	}
}

func TestPrivateSourcesAreNotCapped(t *testing.T) {
	l, _ := alone(t, func(c *Config) { c.NewKeysPerMinute = 1 })
	p := PerHour("p", 3)
	for i, addr := range []string{"10.0.0.1", "192.168.1.1", "127.0.0.1", "::1", "fe80::1", "fd00::1"} {
		for j := range 5 {
			if d := l.allowFrom(t, p, fmt.Sprint(i, "-", j), addr); !d.Allowed || d.Reason != "" {
				t.Errorf("%s: %+v", addr, d)
			}
		}
	}
}
