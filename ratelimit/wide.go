package ratelimit

import (
	"math"
	"math/bits"
)

// u128 is an unsigned 128-bit integer. Limits go to 2^53 and periods to years
// of nanoseconds, so products of the two need 115 bits; sums of a few of them
// still fit.
type u128 struct{ hi, lo uint64 }

// mul returns a × b; both must not be negative.
func mul(a, b int64) u128 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	return u128{hi, lo}
}

func (x u128) add(y u128) u128 {
	lo, carry := bits.Add64(x.lo, y.lo, 0)
	return u128{x.hi + y.hi + carry, lo}
}

// sub returns x − y, or 0 where that would be negative.
func (x u128) sub(y u128) u128 {
	lo, borrow := bits.Sub64(x.lo, y.lo, 0)
	hi, borrow := bits.Sub64(x.hi, y.hi, borrow)
	if borrow != 0 {
		return u128{}
	}
	return u128{hi, lo}
}

func (x u128) less(y u128) bool { return x.hi < y.hi || x.hi == y.hi && x.lo < y.lo }

func (x u128) isZero() bool { return x.hi|x.lo == 0 }

// div returns x ÷ d rounded down, and the remainder. A quotient beyond most
// becomes most with no remainder. d must be positive.
func (x u128) div(d, most int64) (q, rem int64) {
	if x.hi == 0 {
		u, v := x.lo/uint64(d), x.lo%uint64(d)
		if u > uint64(most) {
			return most, 0
		}
		return int64(u), int64(v)
	}
	if x.hi >= uint64(d) {
		return most, 0
	}
	u, v := bits.Div64(x.hi, x.lo, uint64(d))
	if u > uint64(most) {
		return most, 0
	}
	return int64(u), int64(v)
}

// divUp returns x ÷ d rounded up.
func (x u128) divUp(d int64) int64 {
	q, rem := x.div(d, math.MaxInt64)
	if rem != 0 {
		q++
	}
	return q
}
