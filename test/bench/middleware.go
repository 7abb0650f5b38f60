package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-chi/httprate"
	"github.com/peerlimit/peerlimit/ratelimit"
	"github.com/sethvargo/go-limiter/httplimit"
	"github.com/sethvargo/go-limiter/memorystore"
)

const middlewarePath = "middleware"

// allocations is how many allocations one decision makes, on average.
func allocations(ctx context.Context, j *job) float64 {
	i := 0
	return testing.AllocsPerRun(1000, func() {
		_, _ = j.ask(ctx, j.keys[i%len(j.keys)])
		i++
	})
}

// middleware measures an allowed request through a contender's middleware for
// net/http, by the client's address, without a network; no rows where it has
// none. Each of them counts in this process alone.
func (r *runner) middleware(contender string) (rows []row, err error) {
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	var handler http.Handler
	switch contender {
	case "peerlimit":
		limits, err := ratelimit.New(ratelimit.Config{})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, limits.Close()) }()
		policy := ratelimit.Policy{Name: free.Name, Limit: free.Limit, Period: free.Period}
		handler = limits.Handler(next, ratelimit.By(policy, ratelimit.ClientIP(ratelimit.Trusted{})))
	case "go-limiter":
		store, err := memorystore.New(&memorystore.Config{Tokens: uint64(free.Limit), Interval: free.Period})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, store.Close(context.Background())) }()
		limit, err := httplimit.NewMiddleware(store, httplimit.IPKeyFunc())
		if err != nil {
			return nil, err
		}
		handler = limit.Handle(next)
	case "httprate":
		handler = httprate.LimitBy(int(free.Limit), free.Period, remoteIP)(next)
	default:
		return nil, nil
	}
	result, err := r.benchmark(handler)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", middlewarePath, err)
	}
	ns := float64(result.T.Nanoseconds()) / float64(result.N)
	allocs := float64(result.AllocsPerOp())
	return []row{{
		Contender: contender, Path: middlewarePath, Callers: 1, PerSecond: 1e9 / ns,
		P50: ns / 1000, P99: ns / 1000, P999: ns / 1000, CPU: ns / 1000, Allocs: &allocs, Calls: int64(result.N),
	}}, nil
}

// remoteIP is httprate's key by the other end of the connection, IPv6 by /64.
func remoteIP(r *http.Request) (string, error) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return httprate.CanonicalizeIP(host), err
}

// benchmark measures as go test -bench does. The response is a new one each
// time, whose two allocations are counted.
func (r *runner) benchmark(handler http.Handler) (testing.BenchmarkResult, error) {
	testing.Init()
	if err := flag.Set("test.benchtime", r.duration.String()); err != nil {
		return testing.BenchmarkResult{}, err
	}
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.RemoteAddr = "203.0.113.7:4711"
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			handler.ServeHTTP(noResponse{make(http.Header)}, request)
		}
	})
	if result.N == 0 {
		return result, errors.New("the benchmark did not run")
	}
	return result, nil
}
