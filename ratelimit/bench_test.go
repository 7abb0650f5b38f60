package ratelimit

import (
	"context"
	"testing"
)

func BenchmarkAllow(b *testing.B) {
	l, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	ctx := context.Background()
	for _, p := range []Policy{
		PerSecond("bucket", MaxLimit),
		{Name: "fixed", Limit: MaxLimit, Period: MaxPeriod, Algorithm: FixedWindow},
		{Name: "sliding", Limit: MaxLimit, Period: MaxPeriod, Algorithm: SlidingWindow},
		Calendar("calendar", MaxLimit, Day, nil),
	} {
		b.Run(p.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d, err := l.Allow(ctx, p, "203.0.113.7")
				if err != nil || !d.Allowed {
					b.Fatal(d, err)
				}
			}
		})
	}
}
