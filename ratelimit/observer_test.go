package ratelimit

import (
	"context"
	"testing"
	"time"
)

func TestObserver(t *testing.T) {
	obs := new(observed)
	l, _ := alone(t, func(c *Config) { c.Observer = obs })
	ctx := context.Background()
	p := PerMinute("p", 10)
	shadow := p
	shadow.Name, shadow.Shadow = "shadow", true
	for _, c := range []struct {
		policy Policy
		cost   int64
		want   Outcome
		near   bool
	}{
		{p, 7, OutcomeAllowed, false},
		{p, 1, OutcomeAllowed, true}, // 80 % in use
		{p, 3, OutcomeDenied, false},
		{shadow, 10, OutcomeAllowed, true},
		{shadow, 1, OutcomeShadowDenied, false},
		{Policy{Name: "free", Unlimited: true}, 1, OutcomeAllowed, false},
	} {
		before := time.Now()
		d, err := l.AllowN(ctx, c.policy, "k", c.cost)
		if err != nil {
			t.Fatal(err)
		}
		o := obs.last()
		if o.Key != "k" || o.Decision != d || o.Outcome != c.want || o.NearLimit != c.near || o.Cost != c.cost || o.Took < 0 || o.Start.Before(before) {
			t.Errorf("%s %d: %+v", c.policy.Name, c.cost, o)
		}
	}
	n := len(obs.all)
	l.Status(ctx, p, "k")
	l.AllowN(ctx, p, "k", -1)
	l.Reset(ctx, p, "k")
	if len(obs.all) != n {
		t.Error("what is no decision was observed")
	}
	l.AllowAll(ctx, Check{Policy: p, Key: "k", Cost: 1}, Check{Policy: shadow, Key: "k", Cost: 1})
	if len(obs.all) != n+2 || obs.last().Outcome != OutcomeShadowDenied {
		t.Errorf("all-or-nothing: %+v", obs.all[n:])
	}
	for _, o := range obs.all {
		if o.Key != "k" {
			t.Errorf("the key of %+v", o)
		}
	}
	l.Acquire(ctx, InFlight("c", 1, time.Second), "k")
	if _, d, _ := l.Acquire(ctx, InFlight("c", 1, time.Second), "k"); d.Allowed || len(obs.all) != n+4 || obs.last().Outcome != OutcomeDenied {
		t.Errorf("places: %+v", obs.all[n+2:])
	}
}

func TestStats(t *testing.T) {
	l, _ := alone(t, func(c *Config) { c.MaxKeys = 256 })
	ctx := context.Background()
	for i := range 20_000 {
		l.Allow(ctx, PerDay("p", 5), string(rune(i+1000)))
	}
	l.PutPolicy(ctx, StoredPolicy{Policy: PerDay("p", 9)})
	s := l.Stats()
	if s.Keys == 0 || s.Keys > 5000 || s.EvictedLive == 0 || s.Copies != 0 || s.Policies != 1 || s.Degraded != 0 {
		t.Errorf("%+v", s)
	}
	if AlwaysAllow.Stats() != (Stats{}) {
		t.Error("a fake has statistics")
	}
}

func TestObserversAreAllTold(t *testing.T) {
	first, second := new(observed), new(observed)
	l, _ := alone(t, func(c *Config) { c.Observer = Observers{first, second} })
	d, err := l.Allow(context.Background(), PerMinute("p", 10), "k")
	if err != nil || first.last().Decision != d || second.last() != first.last() {
		t.Errorf("%v: %+v, %+v", err, first.all, second.all)
	}
}
