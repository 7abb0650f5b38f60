package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
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

// bare is the handler behind the middleware, with none in front of it: what the
// response and the measuring cost by themselves, and so is in each contender's
// row on this path.
type bare struct{ inProcess }

func (bare) name() string                                { return "bare" }
func (bare) prepare(context.Context, path) (*job, error) { return nil, nil }
func (bare) close() error                                { return nil }

// plainText is shared by all responses.
var plainText = []string{"text/plain; charset=utf-8"}

// middleware measures an allowed request through a contender's middleware for
// net/http, by the client's address, without a network; no rows where it has
// none. Each of them counts in this process alone, and has the same request and
// the same handler behind it: one that sets a header, as handlers do, so that
// the response's first header is in nobody's account.
func (r *runner) middleware(contender string) (rows []row, err error) {
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header()["Content-Type"] = plainText })
	var handler http.Handler
	switch contender {
	case "bare":
		handler = next
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
	us, allocs := rounded(ns/1000), float64(result.AllocsPerOp())
	return []row{{
		Contender: contender, Path: middlewarePath, Callers: 1, PerSecond: rounded(1e9 / ns),
		P50: us, P99: us, P999: us, CPU: us, Allocs: &allocs, Calls: int64(result.N),
	}}, nil
}

// remoteIP is httprate's key by the other end of the connection, IPv6 by /64.
func remoteIP(r *http.Request) (string, error) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return httprate.CanonicalizeIP(host), err
}

const (
	// middlewareTries is in how many parts the time of a middleware is measured.
	// The fastest counts: what else runs on the machine makes a part slower, and
	// nothing makes one faster than the code is.
	middlewareTries = 10
	// middlewareHeap is what a service of some size has in its heap, bytes. With
	// the few MB of this program memory is collected after every 10,000 requests,
	// and that takes longer than a bare handler does.
	middlewareHeap = 64 << 20
)

// benchmark measures as go test -bench does. The response is a new one each
// time, as a server's is, and its two allocations are counted: those of bare.
func (r *runner) benchmark(handler http.Handler) (fastest testing.BenchmarkResult, err error) {
	heap := make([]byte, middlewareHeap)
	defer runtime.KeepAlive(heap)
	testing.Init()
	if err := flag.Set("test.benchtime", (r.duration / middlewareTries).String()); err != nil {
		return fastest, err
	}
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.RemoteAddr = "203.0.113.7:4711"
	for range middlewareTries {
		runtime.GC()
		result := testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				handler.ServeHTTP(noResponse{make(http.Header)}, request)
			}
		})
		if result.N == 0 {
			return result, errors.New("the benchmark did not run")
		}
		if fastest.N == 0 || result.NsPerOp() < fastest.NsPerOp() {
			fastest = result
		}
	}
	return fastest, nil
}
