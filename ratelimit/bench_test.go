package ratelimit

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
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

// BenchmarkAllowKeys is of as many keys as do not fit into a processor's first
// cache.
func BenchmarkAllowKeys(b *testing.B) {
	l, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	ctx := context.Background()
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = "account:" + strconv.Itoa(100_000+i)
	}
	p := PerSecond("bucket", MaxLimit)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		d, err := l.Allow(ctx, p, keys[i%len(keys)])
		if err != nil || !d.Allowed {
			b.Fatal(d, err)
		}
	}
}

type discardWriter struct{ header http.Header }

func (w *discardWriter) Header() http.Header         { return w.header }
func (w *discardWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *discardWriter) WriteHeader(int)             {}

func BenchmarkHandler(b *testing.B) {
	l, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	perIP, perKey := PerSecond("ip", MaxLimit), PerHour("key", MaxLimit)
	for name, h := range map[string]http.Handler{
		"none":   next,
		"ip":     l.Handler(next, By(perIP, ClientIP(Trusted{}))),
		"ipv6":   l.Handler(next, By(perIP, ClientIP(Trusted{}))),
		"two":    l.Handler(next, By(perIP, ClientIP(Trusted{})), By(perKey, Header("X-API-Key"))),
		"denied": l.Handler(next, By(PerDay("denied", 1), ClientIP(Trusted{}))),
	} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("X-API-Key", "k-123456")
			if r.RemoteAddr = "203.0.113.7:4711"; name == "ipv6" {
				r.RemoteAddr = "[2001:db8:1:2::7]:4711"
			}
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(&discardWriter{make(http.Header)}, r)
			}
		})
	}
}
