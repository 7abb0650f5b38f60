package admin

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/ratelimit"
)

func decide(t *Traffic, policy, key string, outcome ratelimit.Outcome) {
	t.Decided(context.Background(), ratelimit.Observation{
		Key: key, Decision: ratelimit.Decision{Policy: policy}, Outcome: outcome, Start: time.Now(),
	})
}

func TestOutcomesAreCounted(t *testing.T) {
	traffic := NewTraffic()
	for outcome, times := range map[ratelimit.Outcome]int{
		ratelimit.OutcomeAllowed: 1, ratelimit.OutcomeDenied: 2, ratelimit.OutcomeShadowDenied: 4,
		ratelimit.OutcomeDegradedAllowed: 8, ratelimit.OutcomeDegradedDenied: 16,
	} {
		for range times {
			decide(traffic, "p", "k", outcome)
		}
	}
	r := traffic.report()
	assert.Equal(t, totals{Decisions: 31, Denials: 18, Degraded: 24}, r.Totals)
	require.Len(t, r.Hot, 1)
	require.Len(t, r.Denied, 1)
	assert.InDelta(t, 31.0/18, r.Hot[0].PerSecond/r.Denied[0].PerSecond, 0.01)
}

func TestRatesAreOfTheLastTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		traffic := NewTraffic()
		assert.Zero(t, traffic.report().Rates)
		second := func(decisions, denials int) {
			for i := range decisions {
				outcome := ratelimit.OutcomeAllowed
				if i < denials {
					outcome = ratelimit.OutcomeDenied
				}
				decide(traffic, "p", "k", outcome)
			}
			time.Sleep(time.Second)
		}
		for range 4 {
			second(20, 5)
		}
		r := traffic.report()
		assert.InDelta(t, 20, r.Rates.Decisions, 0.01, "since the start, which was less than ten seconds ago")
		assert.InDelta(t, 5, r.Rates.Denials, 0.01)
		for range 30 {
			second(40, 0)
		}
		r = traffic.report()
		assert.InDelta(t, 40, r.Rates.Decisions, 0.01)
		assert.Zero(t, r.Rates.Denials)
		for range 5 {
			second(0, 0)
		}
		assert.InDelta(t, 20, traffic.report().Rates.Decisions, 0.01, "half of it was quiet")
		time.Sleep(time.Hour)
		r = traffic.report()
		assert.Zero(t, r.Rates)
		assert.Empty(t, r.Hot, "an hour ago is not hot")
		assert.Equal(t, totals{Decisions: 80 + 1200, Denials: 20}, r.Totals)
		second(10, 0)
		assert.InDelta(t, 1, traffic.report().Rates.Decisions, 0.01)
	})
}

func TestRatesOfKeysAreThoseTheyHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		traffic := NewTraffic()
		for range 300 {
			for key, n := range map[string]int{"a": 50, "b": 20, "c": 1} {
				for range n {
					decide(traffic, "p", key, ratelimit.OutcomeAllowed)
				}
			}
			decide(traffic, "q", "a", ratelimit.OutcomeDenied)
			time.Sleep(time.Second)
		}
		r := traffic.report()
		require.Len(t, r.Hot, 4)
		for i, want := range []struct {
			policy, key string
			rate        float64
		}{{"p", "a", 50}, {"p", "b", 20}, {"p", "c", 1}, {"q", "a", 1}} {
			assert.Equal(t, want.policy+want.key, r.Hot[i].Policy+r.Hot[i].Key)
			assert.InEpsilon(t, want.rate, r.Hot[i].PerSecond, 0.03, want.key)
		}
		require.Len(t, r.Denied, 1)
		assert.Equal(t, "q", r.Denied[0].Policy)
	})
}

// A flood is looked at by chance, so that keys cost no more than a thousand
// looks a second, and rates are right all the same.
func TestAFloodIsSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		traffic := NewTraffic()
		for range 20 {
			for i := range 100_000 {
				key := "hot"
				if i%4 == 0 {
					key = fmt.Sprint("other", i)
				}
				decide(traffic, "p", key, ratelimit.OutcomeAllowed)
			}
			assert.Less(t, traffic.taken, 10*samplesASecond, "looks in a second")
			time.Sleep(time.Second)
		}
		assert.Less(t, traffic.taken, 2*samplesASecond, "once it has been seen")
		r := traffic.report()
		assert.Equal(t, uint64(2_000_000), r.Totals.Decisions)
		assert.Equal(t, "hot", r.Hot[0].Key)
		assert.InEpsilon(t, 75_000, r.Hot[0].PerSecond, 0.1)
		time.Sleep(time.Second)
		decide(traffic, "p", "x", ratelimit.OutcomeAllowed)
		time.Sleep(time.Second)
		decide(traffic, "p", "x", ratelimit.OutcomeAllowed)
		assert.Zero(t, traffic.shift.Load(), "then every one is looked at again")
	})
}

func TestCountsAreExactAmongMany(t *testing.T) {
	traffic := NewTraffic()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 5_000 {
				decide(traffic, "p", fmt.Sprint(g, i%50), ratelimit.OutcomeDenied)
				if i%1000 == 0 {
					traffic.report()
				}
			}
		})
	}
	wg.Wait()
	assert.Equal(t, totals{Decisions: 40_000, Denials: 40_000}, traffic.report().Totals)
}

func TestADecisionOfAKnownKeyAllocatesNothing(t *testing.T) {
	traffic := NewTraffic()
	o := ratelimit.Observation{Key: "k", Decision: ratelimit.Decision{Policy: "p"}, Outcome: ratelimit.OutcomeDenied, Start: time.Now()}
	var observer ratelimit.Observer = traffic
	ctx := context.Background()
	observer.Decided(ctx, o)
	assert.Zero(t, testing.AllocsPerRun(1000, func() { observer.Decided(ctx, o) }))
}

func BenchmarkDecided(b *testing.B) {
	traffic := NewTraffic()
	o := ratelimit.Observation{Key: "203.0.113.7", Decision: ratelimit.Decision{Policy: "p"}, Outcome: ratelimit.OutcomeAllowed, Start: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		traffic.Decided(b.Context(), o)
	}
}
