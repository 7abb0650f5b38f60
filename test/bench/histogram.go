package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets of 1/16 of a power of two, so that a
// percentile is at most 6 % too high. The zero value is empty.
type histogram struct {
	buckets [64 * 16]int64
	count   int64
	slowest time.Duration
}

func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < 16 {
		return int(n)
	}
	power := bits.Len64(n) - 5 // the leading one and four bits behind it are kept
	return power<<4 + int(n>>power)
}

// boundOf is the longest duration of a bucket.
func boundOf(bucket int) time.Duration {
	if bucket < 32 {
		return time.Duration(bucket)
	}
	power := bucket>>4 - 1
	return time.Duration((bucket&15|16)+1)<<power - 1
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(d)]++
	h.count++
	h.slowest = max(h.slowest, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.count += o.count
	h.slowest = max(h.slowest, o.slowest)
}

// percentile returns how long the fastest share took at most; share is from 0
// to 1.
func (h *histogram) percentile(share float64) time.Duration {
	rest := int64(share * float64(h.count))
	for i, n := range h.buckets {
		if rest -= n; rest < 0 {
			return min(boundOf(i), h.slowest)
		}
	}
	return h.slowest
}
