package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/auth"
)

// Keys are verified before a handler runs, which then knows who asks.
func Example() {
	keys, err := auth.New(auth.Config{Store: auth.NewMemory()}) // Cluster: node, in a cluster
	if err != nil {
		fmt.Println(err)
		return
	}
	defer keys.Close()
	issued, err := keys.Create(context.Background(), auth.Spec{Project: "shop", Scopes: []string{"orders:read"}})
	if err != nil {
		fmt.Println(err)
		return
	}

	orders := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := auth.FromContext(r.Context())
		fmt.Fprintf(w, "orders of %s", p.Project)
	})
	mux := http.NewServeMux()
	mux.Handle("GET /orders", keys.Handler(auth.RequireScope("orders:read")(orders)))
	mux.Handle("POST /orders", keys.Handler(auth.RequireScope("orders:write")(orders)))

	ask := func(method, key string) {
		r := httptest.NewRequest(method, "/orders", nil)
		r.Header.Set("Authorization", "Bearer "+key)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(method, w.Code, w.Body)
	}
	key := issued.Secret.Reveal()
	ask("GET", key)
	ask("POST", key)
	if _, err := keys.Disable(context.Background(), issued.Key.ID); err != nil {
		fmt.Println(err)
	}
	ask("GET", key)
	fmt.Println("printed:", issued.Secret)
	// Output:
	// GET 200 orders of shop
	// POST 403 {"type":"about:blank","title":"Forbidden","status":403,"detail":"the API key lacks a scope"}
	//
	// GET 401 {"type":"about:blank","title":"Unauthorized","status":401,"detail":"the API key is disabled","verdict":"DISABLED"}
	//
	// printed: [secret]
}

// Both keys are valid until the grace ends, then only the new one.
func ExampleAuthenticator_Rotate() {
	clock := &testClock{now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}
	keys, err := auth.New(auth.Config{Store: auth.NewMemory(), Now: clock.Now})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer keys.Close()
	ctx := context.Background()
	old, err := keys.Create(ctx, auth.Spec{Project: "shop"})
	if err != nil {
		fmt.Println(err)
		return
	}
	rotated, err := keys.Rotate(ctx, old.Key.ID, 24*time.Hour)
	if err != nil {
		fmt.Println(err)
		return
	}
	show := func(when string) {
		o, _ := keys.Verify(ctx, old.Secret.Reveal())
		n, _ := keys.Verify(ctx, rotated.Secret.Reveal())
		fmt.Printf("%s: old %v, new %v\n", when, o.Verdict, n.Verdict)
	}
	show("at once")
	clock.Add(24*time.Hour - time.Second)
	show("a second before the end")
	clock.Add(time.Second)
	show("at the end")
	// Output:
	// at once: old VALID, new VALID
	// a second before the end: old VALID, new VALID
	// at the end: old EXPIRED, new VALID
}

// Any function can limit failures. Here each client has three, and known keys are not affected.
func ExampleConfig_failureLimit() {
	var mu sync.Mutex
	failed := map[string]int{}
	keys, err := auth.New(auth.Config{
		Store: auth.NewMemory(),
		FailureLimit: func(_ context.Context, client string, failures int) time.Duration {
			mu.Lock()
			defer mu.Unlock()
			if failed[client] += failures; failed[client] >= 3 {
				return time.Minute // a limiter knows better
			}
			return 0
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer keys.Close()
	h := keys.Handler(http.NotFoundHandler())
	for i := range 5 {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-API-Key", fmt.Sprint("guess-number-", i))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, http.StatusText(w.Code))
	}
	// Output:
	// 401 Unauthorized
	// 401 Unauthorized
	// 401 Unauthorized
	// 429 Too Many Requests
	// 429 Too Many Requests
}

// testClock is a clock for tests.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
