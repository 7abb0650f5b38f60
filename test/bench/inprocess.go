package main

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-chi/httprate"
	"github.com/sethvargo/go-limiter"
	"github.com/sethvargo/go-limiter/memorystore"
)

// inProcess are limiters that count for one process alone: what a decision can
// cost where nobody has to agree with anybody.
type inProcess struct{}

func (inProcess) missing() string                  { return "" }
func (inProcess) start(context.Context, int) error { return nil }
func (inProcess) processes() []int                 { return nil }

// goLimiter is go-limiter's store in memory.
type goLimiter struct {
	inProcess
	store limiter.Store
}

func (g *goLimiter) name() string { return "go-limiter" }

func (g *goLimiter) prepare(ctx context.Context, p path) (*job, error) {
	if !p.decides() || p.name == "remote" {
		return nil, nil
	}
	if err := g.close(); err != nil {
		return nil, err
	}
	var err error
	g.store, err = memorystore.New(&memorystore.Config{Tokens: uint64(p.rule.Limit), Interval: p.rule.Period})
	if err != nil {
		return nil, err
	}
	store := g.store
	one := func(ctx context.Context, key string) (bool, error) {
		_, _, _, ok, err := store.Take(ctx, key)
		return ok, err
	}
	return &job{ask: one, keys: p.names(p.keys), spend: spender(one)}, nil
}

func (g *goLimiter) close() error {
	if g.store == nil {
		return nil
	}
	err := g.store.Close(context.Background())
	g.store = nil
	return err
}

// httpRate is httprate's counter in memory, by the one call that decides and
// counts; it writes headers too.
type httpRate struct{ inProcess }

func (h *httpRate) name() string { return "httprate" }

func (h *httpRate) prepare(ctx context.Context, p path) (*job, error) {
	if !p.decides() || p.name == "remote" {
		return nil, nil
	}
	limits := httprate.NewRateLimiter(int(p.rule.Limit), p.rule.Period)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", strings.NewReader(""))
	if err != nil {
		return nil, err
	}
	one := func(_ context.Context, key string) (bool, error) {
		return !limits.OnLimit(noResponse{make(http.Header, 4)}, request, key), nil
	}
	return &job{ask: one, keys: p.names(p.keys), spend: spender(one)}, nil
}

func (h *httpRate) close() error { return nil }

// noResponse is a response that nobody reads.
type noResponse struct{ header http.Header }

func (n noResponse) Header() http.Header         { return n.header }
func (n noResponse) Write(b []byte) (int, error) { return len(b), nil }
func (n noResponse) WriteHeader(status int) {
	n.header.Set("Status", strconv.Itoa(status))
}
