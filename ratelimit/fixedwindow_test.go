package ratelimit

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

func fixed(limit int64, period time.Duration) Policy {
	return Policy{Name: "p", Limit: limit, Period: period, Algorithm: FixedWindow}
}

func TestFixedWindowSteps(t *testing.T) {
	const s = time.Second
	runSteps(t, fixed(5, time.Minute), []step{
		{0, 0, true, 5, 0, 0, 0},
		{0, 2, true, 3, 0, 60 * s, 60 * s},
		{20 * s, 4, false, 3, 40 * s, 40 * s, 40 * s},
		{0, 3, true, 0, 0, 40 * s, 40 * s},
		{39 * s, 1, false, 0, 1 * s, 1 * s, 1 * s},
		{1 * s, 1, true, 4, 0, 60 * s, 60 * s},
		{2 * time.Minute, 5, true, 0, 0, 60 * s, 60 * s},
	})
}

// Hits on a busy key do not prolong its window: it ends a period after the
// first one.
func TestFixedWindowEndsThoughBusy(t *testing.T) {
	c := newCell(t)
	p := fixed(10, time.Minute)
	allowed := 0
	for range 100 { // one a second
		if c.take(p, 1).allowed() {
			allowed++
		}
		c.advance(time.Second)
	}
	if allowed != 20 {
		t.Fatalf("%d allowed in 100 s, want 10 in each of two windows", allowed)
	}
}

// fixedModel keeps every permit it granted, and when its window began.
type fixedModel struct {
	spent []int64
	began int64
}

func (m *fixedModel) open(now int64, p Policy) bool {
	return len(m.spent) > 0 && now-m.began < int64(p.Period)
}

func (m *fixedModel) look(now, _ int64, p Policy) func(int64) *big.Int {
	return func(t int64) *big.Int {
		sum := new(big.Int)
		if m.open(now+t, p) {
			for _, cost := range m.spent {
				sum.Add(sum, product(cost, int64(p.Period)))
			}
		}
		return sum
	}
}

func (m *fixedModel) charge(now, _ int64, p Policy, cost int64) {
	if !m.open(now, p) {
		m.spent, m.began = nil, now
	}
	m.spent = append(m.spent, cost)
}

func TestFixedWindowEqualsModel(t *testing.T) {
	sequences(t, func(t *testing.T, rnd *rand.Rand) {
		p := fixed(randomLimit(rnd), randomPeriod(rnd))
		compare(t, rnd, &fixedModel{}, func() Policy {
			if rnd.IntN(6) == 0 {
				p.Limit = randomLimit(rnd)
			}
			return p
		})
	})
}

func TestFixedWindowPeriodMovesTheEnd(t *testing.T) {
	c := newCell(t)
	c.take(fixed(10, time.Minute), 4)
	c.advance(20 * time.Second)
	if r := c.status(fixed(10, time.Hour), 1); r.remaining != 6 || time.Duration(r.whole) != time.Hour-20*time.Second {
		t.Fatalf("lengthened: %+v", r)
	}
	if r := c.status(fixed(10, 20*time.Second), 1); r.remaining != 10 || r.whole != 0 {
		t.Fatalf("shortened to what has passed: %+v", r)
	}
}
