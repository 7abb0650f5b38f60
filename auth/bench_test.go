package auth

import (
	"context"
	"testing"
	"time"
)

func benchAuthenticator(b *testing.B) (*Authenticator, string) {
	b.Helper()
	a, err := New(Config{Store: NewMemory()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = a.Close() })
	issued, err := a.Create(context.Background(), Spec{Project: "p", Scopes: []string{"orders:read"}})
	if err != nil {
		b.Fatal(err)
	}
	key := issued.Secret.Reveal()
	for range 3 { // read, cache, confirm
		if r, err := a.Verify(context.Background(), key); r.Verdict != Valid {
			b.Fatal(r.Verdict, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return a, key
}

func BenchmarkVerifyNear(b *testing.B) {
	a, key := benchAuthenticator(b)
	ctx := context.Background()
	b.ReportAllocs()
	misses := a.CacheStats().StoreReads
	for b.Loop() {
		r, err := a.Verify(ctx, key)
		if r.Verdict != Valid || err != nil {
			b.Fatal(r.Verdict, err)
		}
	}
	if s := a.CacheStats(); s.StoreReads != misses {
		b.Fatalf("the store was read %d times", s.StoreReads-misses)
	}
}

func BenchmarkVerifyNearParallel(b *testing.B) {
	a, key := benchAuthenticator(b)
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if r, err := a.Verify(ctx, key); r.Verdict != Valid {
				b.Fatal(r.Verdict, err)
			}
		}
	})
}

func BenchmarkVerifyMalformed(b *testing.B) {
	a, key := benchAuthenticator(b)
	ctx := context.Background()
	wrong := key[:len(key)-1] + "!"
	b.ReportAllocs()
	for b.Loop() {
		if r, _ := a.Verify(ctx, wrong); r.Verdict != Malformed {
			b.Fatal(r.Verdict)
		}
	}
}
