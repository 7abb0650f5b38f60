package ratelimit

import (
	"flag"
	"math/big"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

var sequenceSeed = flag.Uint64("sequence", 0, "run only this sequence of the model tests (1 and up)")

var sequenceCount = uint64(100_000)

// sequences runs f with 100,000 random streams where PEERLIMIT_SOAK is set,
// 5,000 otherwise. Each stream
// has a seed of its own, which a failure names.
func sequences(t *testing.T, f func(t *testing.T, rnd *rand.Rand)) {
	t.Helper()
	n := sequenceCount
	if testing.Short() || os.Getenv("PEERLIMIT_SOAK") == "" {
		n = min(n, 5_000)
	}
	first := uint64(1)
	if *sequenceSeed > 0 {
		first, n = *sequenceSeed, *sequenceSeed
	}
	for seed := first; seed <= n && !t.Failed(); seed++ {
		func() {
			defer func() {
				if t.Failed() {
					t.Logf("replay with -sequence=%d", seed)
				}
			}()
			f(t, rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)))
		}()
	}
}

func randomLimit(rnd *rand.Rand) int64 {
	switch rnd.IntN(8) {
	case 0:
		return MaxLimit - rnd.Int64N(100)
	case 1:
		return 1 + rnd.Int64N(MaxLimit)
	case 2:
		return 1 + rnd.Int64N(1_000_000)
	}
	return 1 + rnd.Int64N(12)
}

func randomPeriod(rnd *rand.Rand) time.Duration {
	switch rnd.IntN(6) {
	case 0:
		return MaxPeriod - time.Duration(rnd.Int64N(100))
	case 1:
		return MinPeriod + time.Duration(rnd.Int64N(int64(MaxPeriod-MinPeriod)))
	case 2:
		return []time.Duration{MinPeriod, 7 * time.Second, 24 * time.Hour, 365 * 24 * time.Hour}[rnd.IntN(4)]
	}
	return []time.Duration{time.Second, time.Minute, time.Hour}[rnd.IntN(3)]
}

// randomPause often lands exactly on an edge, and sometimes steps back.
func randomPause(rnd *rand.Rand, p Policy) time.Duration {
	period := int64(p.Period)
	if p.Align != Unaligned {
		period = int64(alignedFor[p.Align])
	}
	return time.Duration(pauseWithin(rnd, period, p.Limit))
}

// alignedFor is about how long a calendar window lasts.
var alignedFor = [...]time.Duration{Second: time.Second, Minute: time.Minute, Hour: time.Hour,
	Day: 24 * time.Hour, Week: 7 * 24 * time.Hour, Month: 30 * 24 * time.Hour}

func pauseWithin(rnd *rand.Rand, period, limit int64) int64 {
	switch rnd.IntN(9) {
	case 0:
		return 0
	case 1:
		return period
	case 2:
		return period - 1 + rnd.Int64N(3)
	case 3:
		return period / limit
	case 4:
		return period/limit + 1
	case 5:
		return rnd.Int64N(2*period + 1)
	case 6:
		return -rnd.Int64N(min(period/4, int64(24*time.Hour)) + 1) // a clock that steps back
	}
	return rnd.Int64N(period + 1)
}

func randomCost(rnd *rand.Rand, most int64) int64 {
	switch rnd.IntN(6) {
	case 0:
		return 0
	case 1:
		return most
	case 2:
		return 1 + rnd.Int64N(most)
	case 3:
		return min(most, 2)
	}
	return 1
}

// model is an algorithm written another way: slow, in integers of any size, and
// plain.
type model interface {
	// look returns the permits in use × period, t ns after now, if nobody
	// spends any.
	look(now, wall int64, p Policy) func(t int64) *big.Int
	charge(now, wall int64, p Policy, cost int64)
}

// compare asks a cell and a model the same for ten steps. Times that are
// answered must be right to the nanosecond: by then it is so, and one
// nanosecond earlier it is not.
func compare(t *testing.T, rnd *rand.Rand, m model, next func() Policy) {
	t.Helper()
	c := newCell(t)
	for range 10 {
		p := next()
		c.advance(randomPause(rnd, p))
		cost := randomCost(rnd, p.capacity())
		used := m.look(c.now, c.wall, p)
		period := big.NewInt(max(int64(p.Period), 1))
		left := func(t int64) int64 { // rounded down
			free := new(big.Int).Sub(new(big.Int).Mul(big.NewInt(p.capacity()), period), used(t))
			return free.Div(free, period).Int64()
		}
		allowed := cost == 0 || cost <= left(0)
		got := c.take(p, cost)
		if got.allowed() != allowed {
			t.Fatalf("%+v cost %d: allowed %v with %d left", p, cost, got.allowed(), left(0))
		}
		if !allowed {
			exact(t, "retry", got.retry, func(t int64) bool { return cost <= left(t) })
		}
		if allowed && cost > 0 {
			m.charge(c.now, c.wall, p, cost)
			used = m.look(c.now, c.wall, p)
		}
		if want := max(left(0), 0); got.remaining != want {
			t.Fatalf("%+v cost %d: %d remaining, want %d", p, cost, got.remaining, want)
		}
		if used(0).Sign() == 0 {
			if got.whole != 0 || got.next != 0 {
				t.Fatalf("%+v cost %d: nothing used, %+v", p, cost, got)
			}
			continue
		}
		exact(t, "whole", got.whole, func(t int64) bool { return used(t).Sign() == 0 })
		exact(t, "next", got.next, func(t int64) bool { return left(t) > got.remaining })
	}
}

func exact(t *testing.T, what string, after int64, done func(int64) bool) {
	t.Helper()
	if !done(after) {
		t.Fatalf("%s after %d ns: not yet", what, after)
	}
	if after == 0 || done(after-1) {
		t.Fatalf("%s after %d ns: it was so a nanosecond earlier", what, after)
	}
}

func product(a, b int64) *big.Int { return new(big.Int).Mul(big.NewInt(a), big.NewInt(b)) }
