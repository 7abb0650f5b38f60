package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/peerlimit/peerlimit/ratelimit"
)

// newLimiter returns a limiter of this process alone. A service gives its
// cluster.Node as Config.Cluster; the rest is the same.
func newLimiter() *ratelimit.Limiter {
	limits, err := ratelimit.New(ratelimit.Config{})
	if err != nil {
		panic(err)
	}
	return limits
}

// api stands for a service's own handler.
var api = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })

// ask sends a request and prints what a client sees.
func ask(h http.Handler, remote string, header ...string) {
	r := httptest.NewRequest("GET", "/items/7", nil)
	r.RemoteAddr = remote
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Header().Get("RateLimit"))
}

func Example() {
	limits := newLimiter()
	defer limits.Close()
	ctx := context.Background()
	perIP := ratelimit.PerMinute("ip", 2)
	for range 3 {
		d, err := limits.Allow(ctx, perIP, "203.0.113.7")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(d.Allowed, d.Remaining, d.RetryAfter.Round(time.Second))
	}
	// Output:
	// true 1 0s
	// true 0 0s
	// false 0 30s
}

func ExampleLimiter_Limit() {
	limits := newLimiter()
	defer limits.Close()
	perUser := ratelimit.PerHour("exports", 1)
	for range 2 {
		err := limits.Limit(context.Background(), perUser, "ada")
		var exceeded *ratelimit.ExceededError
		if errors.As(err, &exceeded) {
			fmt.Println("again in", exceeded.Decision.RetryAfter.Round(time.Minute))
			return
		}
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// again in 1h0m0s
}

// By address: no header is believed but that of the proxies one names.
func ExampleClientIP() {
	limits := newLimiter()
	defer limits.Close()
	trusted := ratelimit.Trusted{
		Header:  "X-Forwarded-For",
		Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	}
	h := limits.Handler(api, ratelimit.By(ratelimit.PerMinute("ip", 2), ratelimit.ClientIP(trusted)))
	ask(h, "10.0.0.1:4711", "X-Forwarded-For", "203.0.113.7")
	ask(h, "10.0.0.1:4711", "X-Forwarded-For", "6.6.6.6, 203.0.113.7") // the same client, making one up
	ask(h, "10.0.0.1:4711", "X-Forwarded-For", "198.51.100.1")
	ask(h, "203.0.113.7:99", "X-Forwarded-For", "6.6.6.6") // and past the proxy
	// Output:
	// 200 "ip";r=1;t=30
	// 200 "ip";r=0;t=30
	// 200 "ip";r=1;t=30
	// 429 "ip";r=0;t=30
}

// By API key: the key itself is neither stored nor sent to other members.
func ExampleSecret() {
	limits := newLimiter()
	defer limits.Close()
	perKey := ratelimit.Policy{Name: "key", Limit: 2, Period: time.Hour, Algorithm: ratelimit.FixedWindow}
	h := limits.Handler(api, ratelimit.By(perKey, ratelimit.Secret(ratelimit.Header("X-API-Key"))))
	ask(h, "203.0.113.7:99", "X-API-Key", "k1")
	ask(h, "203.0.113.8:99", "X-API-Key", "k1")
	ask(h, "203.0.113.9:99", "X-API-Key", "k1")
	ask(h, "203.0.113.9:99", "X-API-Key", "k2")
	// Output:
	// 200 "key";r=1;t=3600
	// 200 "key";r=0;t=3600
	// 429 "key";r=0;t=3600
	// 200 "key";r=1;t=3600
}

// Combined: a request spends under all policies or under none.
func ExampleLimiter_Handler() {
	limits := newLimiter()
	defer limits.Close()
	mux := http.NewServeMux()
	mux.Handle("GET /items/{id}", limits.Handler(api,
		ratelimit.By(ratelimit.PerMinute("ip", 60), ratelimit.ClientIP(ratelimit.Trusted{})),
		ratelimit.By(ratelimit.PerHour("key", 1), ratelimit.Header("X-API-Key")),
		ratelimit.By(ratelimit.PerMinute("key-route", 10), ratelimit.Join(ratelimit.Header("X-API-Key"), ratelimit.Route())),
	))
	ask(mux, "203.0.113.7:99", "X-API-Key", "k1")
	ask(mux, "203.0.113.7:99", "X-API-Key", "k1")
	// Output:
	// 200 "ip";r=59;t=1, "key";r=0;t=3600, "key-route";r=9;t=6
	// 429 "ip";r=59, "key";r=0;t=3600, "key-route";r=9
}

// Options beyond the rules, in the form that chi and others chain.
func ExampleMiddleware() {
	limits := newLimiter()
	defer limits.Close()
	m := ratelimit.Middleware{
		Limiter: limits,
		Rules: []ratelimit.Rule{{
			Policy: ratelimit.PerMinute("tenant", 100),
			Key:    ratelimit.Header("X-Tenant"),
			Cost: func(r *http.Request) int64 {
				if r.Method == http.MethodGet {
					return 1
				}
				return 10
			},
		}},
		Skip:       func(r *http.Request) bool { return r.URL.Path == "/healthz" },
		Jitter:     5 * time.Second,
		XRateLimit: true,
	}
	ask(m.Wrap(api), "203.0.113.7:99", "X-Tenant", "acme")
	ask(m.Wrap(api), "203.0.113.7:99")
	// Output:
	// 200 "tenant";r=99;t=1
	// 400
}

// One customer gets ten times as much, on every member and at once.
func ExampleLimiter_SetOverride() {
	limits := newLimiter()
	defer limits.Close()
	ctx := context.Background()
	perCustomer := ratelimit.PerHour("customer", 1000)
	receipt, err := limits.SetOverride(ctx, "customer", ratelimit.Override{Key: "customer-42", Times: 10})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("in force on %d of %d members\n", receipt.Reached, receipt.Members)
	for _, key := range []string{"customer-41", "customer-42"} {
		d, err := limits.Allow(ctx, perCustomer, key)
		fmt.Println(key, d.Limit, d.Remaining, err)
	}
	// Output:
	// in force on 1 of 1 members
	// customer-41 1000 999 <nil>
	// customer-42 10000 9999 <nil>
}

func ExampleParsePolicies() {
	policies, err := ratelimit.ParsePolicies([]byte(`
policies:
  - name: key
    limit: 5000
    period: 1h
    overrides:
      - {key: customer-42, times: 10}
  - name: mails
    limit: 100
    algorithm: fixed-window
    align: day
    timezone: UTC
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	limits := newLimiter()
	defer limits.Close()
	if err := limits.LoadPolicies(context.Background(), policies); err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range limits.StoredPolicies() {
		fmt.Println(s.Policy.Name, s.Policy.Limit, len(s.Overrides))
	}
	_, err = ratelimit.ParsePolicies([]byte("policies:\n  - name: key\n    limit: 5000\n    period: 1 hour\n"))
	fmt.Println(err)
	// Output:
	// key 5000 1
	// mails 100 0
	// ratelimit: line 4: period: must be a duration such as 60s or 1h, is "1 hour"
}

// A shadow policy counts and never denies: to see whom a limit would hit.
func ExamplePolicy_shadow() {
	limits := newLimiter()
	defer limits.Close()
	p := ratelimit.PerMinute("trial", 1)
	p.Shadow = true
	for range 2 {
		d, err := limits.Allow(context.Background(), p, "k")
		fmt.Printf("%v %q %v\n", d.Allowed, d.Reason, err)
	}
	// Output:
	// true "" <nil>
	// true "shadow" <nil>
}

// A worker that waits its turn.
func ExampleLimiter_Wait() {
	limits := newLimiter()
	defer limits.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := ratelimit.PerSecond("mails", 100)
	p.Burst = 1
	start := time.Now()
	for range 3 {
		if err := limits.Wait(ctx, p, "smtp.example.com"); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println("at least 20 ms:", time.Since(start) >= 20*time.Millisecond)

	slow := ratelimit.PerHour("reports", 1)
	fmt.Println(limits.Wait(ctx, slow, "ada"))
	err := limits.Wait(ctx, slow, "ada") // an hour away, the context ends before
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output:
	// at least 20 ms: true
	// <nil>
	// true
}

// Several keys, all or nothing, wherever in the cluster each is counted.
func ExampleLimiter_AllowAll() {
	limits := newLimiter()
	defer limits.Close()
	perUser, perProject := ratelimit.PerMinute("user", 10), ratelimit.PerMinute("project", 3)
	for range 2 {
		all, err := limits.AllowAll(context.Background(),
			ratelimit.Check{Policy: perUser, Key: "ada", Cost: 2},
			ratelimit.Check{Policy: perProject, Key: "engine", Cost: 2},
		)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(all.Allowed, all.Decisions[0].Remaining, all.Decisions[1].Remaining)
	}
	// Output:
	// true 8 1
	// false 8 1
}

// As much as there is: a batch job takes what it can get.
func ExampleLimiter_AllowAtMost() {
	limits := newLimiter()
	defer limits.Close()
	p := ratelimit.PerDay("rows", 1000)
	for range 3 {
		n, _, err := limits.AllowAtMost(context.Background(), p, "import", 400)
		fmt.Println(n, err)
	}
	// Output:
	// 400 <nil>
	// 400 <nil>
	// 200 <nil>
}

// How many at once, over the whole cluster.
func ExampleLimiter_Acquire() {
	limits := newLimiter()
	defer limits.Close()
	ctx := context.Background()
	renders := ratelimit.InFlight("renders", 1, 30*time.Second)
	place, d, err := limits.Acquire(ctx, renders, "gpu-pool")
	if err != nil || !d.Allowed {
		fmt.Println(d, err)
		return
	}
	_, d, _ = limits.Acquire(ctx, renders, "gpu-pool")
	fmt.Println("a second one:", d.Allowed)
	if err := place.Release(ctx); err != nil {
		fmt.Println(err)
	}
	_, d, _ = limits.Acquire(ctx, renders, "gpu-pool")
	fmt.Println("after its release:", d.Allowed)
	// Output:
	// a second one: false
	// after its release: true
}

// checkout is a handler that limits by itself.
func checkout(limits *ratelimit.Limiter) http.HandlerFunc {
	perUser := ratelimit.PerMinute("checkout", 5)
	return func(w http.ResponseWriter, r *http.Request) {
		if err := limits.Limit(r.Context(), perUser, r.Header.Get("X-User")); err != nil {
			http.Error(w, "slow down", http.StatusTooManyRequests)
			return
		}
		fmt.Fprint(w, "thank you")
	}
}

// A handler's test needs no clock and no cluster.
func Example_fakes() {
	for _, limits := range []*ratelimit.Limiter{ratelimit.AlwaysAllow, ratelimit.AlwaysDeny} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "/checkout", nil)
		r.Header.Set("X-User", "ada")
		checkout(limits)(w, r)
		fmt.Println(w.Code)
	}
	// Output:
	// 200
	// 429
}

// Members hand out permits of hot keys by themselves, unless a policy says that
// each decision is its holder's.
func ExamplePolicy_noLeases() {
	policies, err := ratelimit.ParsePolicies([]byte(`
policies:
  - {name: payments, limit: 5000, period: 1h, no_leases: true}
  - {name: api, limit: 5000, period: 1h}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range policies {
		fmt.Println(s.Policy.Name, "is decided by holders only:", s.Policy.NoLeases)
	}
	// Output:
	// payments is decided by holders only: true
	// api is decided by holders only: false
}
