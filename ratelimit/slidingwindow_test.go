package ratelimit

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

func sliding(limit int64, period time.Duration) Policy {
	return Policy{Name: "p", Limit: limit, Period: period, Algorithm: SlidingWindow}
}

func TestSlidingWindowSteps(t *testing.T) {
	const s = time.Second
	runSteps(t, sliding(10, time.Minute), []step{
		{0, 10, true, 0, 0, 120 * s, 66 * s},
		{30 * s, 1, false, 0, 36 * s, 90 * s, 36 * s},
		{36 * s, 1, true, 0, 0, 114 * s, 6 * s}, // 6 s into the next window: 9 of 10 count
		{24 * s, 5, false, 4, 6 * s, 90 * s, 6 * s},
		{6 * s, 5, true, 0, 0, 84 * s, 6 * s},
		{time.Hour, 0, true, 10, 0, 0, 0},
	})
}

// slidingModel keeps every permit it granted with the number of the window that
// it fell in.
type slidingModel struct {
	spent   []spend
	origin  int64
	current int64 // number of the window that was last spent in
}

type spend struct{ window, cost int64 }

// at returns the window that now lies in, and how much of it is to come. A
// clock that stepped back does not reopen a window.
func (m *slidingModel) at(now int64, p Policy) (window, left int64) {
	period := int64(p.Period)
	window = (now - m.origin) / period
	if now < m.origin || window < m.current {
		return m.current, period
	}
	return window, period - (now-m.origin)%period
}

func (m *slidingModel) usedAt(now int64, p Policy) *big.Int {
	window, left := m.at(now, p)
	sum := new(big.Int)
	for _, s := range m.spent {
		switch s.window {
		case window:
			sum.Add(sum, product(s.cost, int64(p.Period)))
		case window - 1:
			sum.Add(sum, product(s.cost, left))
		}
	}
	return sum
}

func (m *slidingModel) look(now, _ int64, p Policy) func(int64) *big.Int {
	return func(t int64) *big.Int { return m.usedAt(now+t, p) }
}

func (m *slidingModel) charge(now, _ int64, p Policy, cost int64) {
	if m.usedAt(now, p).Sign() == 0 {
		*m = slidingModel{origin: now}
	}
	m.current, _ = m.at(now, p)
	m.spent = append(m.spent, spend{m.current, cost})
}

func TestSlidingWindowEqualsModel(t *testing.T) {
	sequences(t, func(t *testing.T, rnd *rand.Rand) {
		p := sliding(randomLimit(rnd), randomPeriod(rnd))
		compare(t, rnd, &slidingModel{}, func() Policy {
			if rnd.IntN(6) == 0 {
				p.Limit = randomLimit(rnd)
			}
			return p
		})
	})
}

func TestSlidingWindowKeepsUsedWhenPeriodChanges(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 20_000 {
		c := newCell(t)
		p := sliding(randomLimit(rnd), randomPeriod(rnd))
		for range 3 {
			c.take(p, 1+rnd.Int64N(p.Limit))
			c.advance(time.Duration(rnd.Int64N(int64(p.Period))))
		}
		before := c.status(p, 0)
		q := p
		q.Period = randomPeriod(rnd)
		after := c.status(q, 0)
		// The share that has passed is kept to a part in the new period.
		slack := max(p.Limit/int64(q.Period), 0) + 1
		if d := before.remaining - after.remaining; d < 0 || d > slack {
			t.Fatalf("%s to %s: %d left before, %d after", p.Period, q.Period, before.remaining, after.remaining)
		}
	}
}

// Over any stretch of one period at most twice the limit, and in even traffic
// the limit.
func TestSlidingWindowErrsByAtMostTwice(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	for range 300 {
		c := newCell(t)
		p := sliding(1+rnd.Int64N(30), time.Minute)
		var at []int64
		for range 200 {
			c.advance(time.Duration(rnd.Int64N(int64(p.Period)/p.Limit + 1)))
			if c.take(p, 1).allowed() {
				at = append(at, c.now)
			}
		}
		for i := range at {
			n := int64(0)
			for j := i; j < len(at) && at[j]-at[i] < int64(p.Period); j++ {
				n++
			}
			if n > 2*p.Limit {
				t.Fatalf("%d within a period at a limit of %d", n, p.Limit)
			}
		}
	}
}
