package ratelimit

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

func TestTokenBucketSteps(t *testing.T) {
	const ms, s = time.Millisecond, time.Second
	runSteps(t, PerMinute("p", 6), []step{
		{0, 1, true, 5, 0, 10 * s, 10 * s},
		{0, 5, true, 0, 0, 60 * s, 10 * s},
		{0, 1, false, 0, 10 * s, 60 * s, 10 * s},
		{0, 3, false, 0, 30 * s, 60 * s, 10 * s},
		{0, 0, true, 0, 0, 60 * s, 10 * s},
		{9999 * ms, 1, false, 0, 1 * ms, 50001 * ms, 1 * ms},
		{1 * ms, 1, true, 0, 0, 60 * s, 10 * s},
		{25 * s, 2, true, 0, 0, 55 * s, 5 * s},
		{0, 1, false, 0, 5 * s, 55 * s, 5 * s},
		{time.Hour, 6, true, 0, 0, 60 * s, 10 * s},
	})
}

// A limit that does not divide its period must still let exactly its limit
// through: thirds of a second are not rounded.
func TestTokenBucketDoesNotRound(t *testing.T) {
	p := PerSecond("p", 3)
	c := newCell(t)
	for i := range 3 {
		if r := c.take(p, 1); !r.allowed() {
			t.Fatalf("permit %d of 3 denied", i+1)
		}
	}
	if r := c.take(p, 1); r.allowed() || r.retry != 333_333_334 {
		t.Fatalf("fourth: %+v", r)
	}
	// Over a whole number of periods exactly the limit comes back.
	allowed := 0
	for range 3000 {
		c.advance(time.Second / 10)
		if c.take(p, 1).allowed() {
			allowed++
		}
	}
	if allowed != 3*300 {
		t.Fatalf("%d allowed in 300 s at 3 a second", allowed)
	}
}

func TestTokenBucketBurst(t *testing.T) {
	const s = time.Second
	p := PerMinute("p", 60)
	p.Burst = 5
	runSteps(t, p, []step{
		{0, 5, true, 0, 0, 5 * s, 1 * s},
		{0, 1, false, 0, 1 * s, 5 * s, 1 * s},
		{2 * s, 2, true, 0, 0, 5 * s, 1 * s},
	})
	p.Burst = 120
	runSteps(t, p, []step{
		{0, 120, true, 0, 0, 120 * s, 1 * s},
		{60 * s, 61, false, 60, 1 * s, 60 * s, 1 * s},
	})
}

// The largest values that a policy can have neither overflow nor round.
func TestTokenBucketExtremes(t *testing.T) {
	for _, p := range []Policy{
		{Name: "p", Limit: MaxLimit, Period: MaxPeriod},
		{Name: "p", Limit: MaxLimit, Period: MinPeriod},
		{Name: "p", Limit: 1, Period: MaxPeriod},
		{Name: "p", Limit: MaxLimit - 1, Period: MaxPeriod - 1, Burst: MaxLimit - 1},
		{Name: "p", Limit: 1, Period: MinPeriod, Burst: int64(MaxPeriod / MinPeriod)},
	} {
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		c := newCell(t)
		n := p.capacity()
		if r := c.take(p, n); !r.allowed() || r.remaining != 0 {
			t.Fatalf("%+v: taking all: %+v", p, r)
		}
		r := c.take(p, n)
		if r.allowed() {
			t.Fatalf("%+v: taken twice", p)
		}
		if n > 1 {
			c.now += r.retry - 1
			if c.take(p, n).allowed() {
				t.Fatalf("%+v: allowed a nanosecond early", p)
			}
			c.now++
		} else {
			c.now += r.retry
		}
		if !c.take(p, n).allowed() {
			t.Fatalf("%+v: not allowed at its RetryAfter", p)
		}
	}
}

// bucketModel is a leaky bucket: what was used at the last charge, and how fast
// it comes back.
type bucketModel struct {
	used  *big.Int // in permits × period
	at    int64
	limit int64 // limit comes back each ns, in the same unit
}

func (m *bucketModel) look(now, _ int64, p Policy) func(int64) *big.Int {
	used := new(big.Int)
	if m.used != nil {
		used = comesBack(m.used, m.limit, now-m.at)
		if most := product(p.Limit, maxDebt); m.limit != p.Limit && used.Cmp(most) > 0 {
			used = most // a lowered limit makes at most 146 years of debt
		}
	}
	return func(t int64) *big.Int { return comesBack(used, p.Limit, t) }
}

func comesBack(used *big.Int, limit, after int64) *big.Int {
	left := new(big.Int).Sub(used, product(limit, after))
	if left.Sign() < 0 {
		left.SetInt64(0)
	}
	return left
}

func (m *bucketModel) charge(now, wall int64, p Policy, cost int64) {
	used := m.look(now, wall, p)(0)
	m.used = used.Add(used, product(cost, int64(p.Period)))
	m.at, m.limit = now, p.Limit
}

func TestTokenBucketEqualsModel(t *testing.T) {
	sequences(t, func(t *testing.T, rnd *rand.Rand) {
		p := Policy{Name: "p", Limit: randomLimit(rnd), Period: randomPeriod(rnd)}
		compare(t, rnd, &bucketModel{}, func() Policy {
			if rnd.IntN(6) == 0 {
				p.Limit = randomLimit(rnd)
			}
			p.Burst = 0
			if rnd.IntN(4) == 0 {
				p.Burst = 1 + rnd.Int64N(min(2*p.Limit, MaxLimit))
			}
			if p.Validate() != nil {
				p.Burst = 0
			}
			return p
		})
	})
}

// A changed period keeps the permits that are in use, to a billionth.
func TestTokenBucketKeepsUsedWhenPeriodChanges(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	for range 20_000 {
		c := newCell(t)
		p := Policy{Name: "p", Limit: randomLimit(rnd), Period: randomPeriod(rnd)}
		c.take(p, 1+rnd.Int64N(p.Limit))
		c.advance(time.Duration(rnd.Int64N(int64(p.Period))))
		before := c.status(p, 0)
		q := p
		q.Period = randomPeriod(rnd)
		after := c.status(q, 0)
		if d := before.remaining - after.remaining; d < 0 || d > 1 {
			t.Fatalf("%s to %s: %d left before, %d after", p.Period, q.Period, before.remaining, after.remaining)
		}
	}
}

// Never more than burst + rate × elapsed, over any stretch of a run.
func TestTokenBucketNeverExceedsItsRate(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	for range 300 {
		c := newCell(t)
		p := Policy{Name: "p", Limit: 1 + rnd.Int64N(50), Period: randomPeriod(rnd)}
		p.Burst = 1 + rnd.Int64N(60)
		if p.Validate() != nil {
			continue
		}
		type spend struct{ at, cost int64 }
		var spent []spend
		for range 100 {
			c.advance(time.Duration(rnd.Int64N(int64(p.Period)/p.Limit + 1)))
			cost := 1 + rnd.Int64N(min(3, p.capacity()))
			if c.take(p, cost).allowed() {
				spent = append(spent, spend{c.now, cost})
			}
		}
		for i := range spent {
			sum := int64(0)
			for j := i; j < len(spent); j++ {
				sum += spent[j].cost
				most := product(p.Limit, spent[j].at-spent[i].at)
				most.Add(most, product(p.capacity(), int64(p.Period)))
				if product(sum, int64(p.Period)).Cmp(most) > 0 {
					t.Fatalf("%+v: %d permits in %s", p, sum, time.Duration(spent[j].at-spent[i].at))
				}
			}
		}
	}
}
