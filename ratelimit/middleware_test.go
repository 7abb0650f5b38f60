package ratelimit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5"
)

var ok = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })

// answer is a response with its headers taken apart.
type answer struct {
	status   int
	header   http.Header
	body     []byte
	policies []sfItem
	limits   []sfItem
	retry    int64
}

func get(t *testing.T, url string, header ...string) answer {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	for name, list := range map[string]*[]sfItem{"RateLimit-Policy": &a.policies, "RateLimit": &a.limits} {
		if *list, err = parseSFList(resp.Header.Get(name)); err != nil || len(resp.Header.Values(name)) > 1 {
			t.Fatalf("%s: %q: %v", name, resp.Header.Values(name), err)
		}
	}
	if s := resp.Header.Get("Retry-After"); s != "" {
		if a.retry, err = strconv.ParseInt(s, 10, 64); err != nil {
			t.Fatalf("Retry-After %q is not whole seconds", s)
		}
		for _, item := range a.limits {
			if after, is := item.params["t"].(int64); is && a.retry < after {
				t.Fatalf("Retry-After %d is before %v", a.retry, item)
			}
		}
	}
	return a
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		s.Close()
	})
	return s.URL
}

func item(name string, params ...any) sfItem {
	it := sfItem{value: name, params: map[string]any{}}
	for i := 0; i < len(params); i += 2 {
		it.order = append(it.order, params[i].(string))
		it.params[params[i].(string)] = params[i+1]
	}
	return it
}

func wantItems(t *testing.T, what string, got []sfItem, want ...sfItem) {
	t.Helper()
	if len(got) == 0 && len(want) == 0 {
		return
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func TestHandlerOverHTTP(t *testing.T) {
	l, clock := alone(t)
	url := serve(t, l.Handler(ok, By(PerMinute("ip", 2), ClientIP(Trusted{}))))
	policy := item("ip", "q", int64(2), "w", int64(60))
	for i := range 2 {
		a := get(t, url)
		if a.status != 200 || string(a.body) != "ok" || a.header.Get("Retry-After") != "" {
			t.Fatalf("%d: %+v", i, a)
		}
		wantItems(t, "policies", a.policies, policy)
		wantItems(t, "limits", a.limits, item("ip", "r", int64(1-i), "t", int64(30)))
	}
	clock.advance(1500 * time.Millisecond)
	a := get(t, url)
	if a.status != 429 || a.retry != 29 || a.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("%+v", a)
	}
	wantItems(t, "policies", a.policies, policy)
	wantItems(t, "limits", a.limits, item("ip", "r", int64(0), "t", int64(29)))
	var body map[string]any
	if err := json.Unmarshal(a.body, &body); err != nil {
		t.Fatal(err)
	}
	if body["type"] != "https://iana.org/assignments/http-problem-types#quota-exceeded" || body["status"] != 429.0 ||
		body["title"] == "" || !reflect.DeepEqual(body["violated-policies"], []any{"ip"}) {
		t.Errorf("%s", a.body)
	}
	clock.advance(time.Duration(a.retry) * time.Second)
	if a := get(t, url); a.status != 200 {
		t.Errorf("denied after Retry-After: %+v", a)
	}
}

func TestHandlerOfSeveralRules(t *testing.T) {
	l, _ := alone(t)
	mux := http.NewServeMux()
	mux.Handle("GET /items/{id}", l.Handler(ok,
		By(PerMinute("ip", 100), ClientIP(Trusted{})),
		By(PerHour("key", 2), Header("X-API-Key")),
		By(PerMinute("key-route", 100), Join(Header("X-API-Key"), Route())),
	))
	url := serve(t, mux) + "/items/7"
	for i := range 2 {
		a := get(t, url, "X-API-Key", "k1")
		if a.status != 200 {
			t.Fatalf("%+v", a)
		}
		wantItems(t, "limits", a.limits, item("ip", "r", int64(99-i), "t", int64(1)),
			item("key", "r", int64(1-i), "t", int64(1800)), item("key-route", "r", int64(99-i), "t", int64(1)))
	}
	a := get(t, url, "X-API-Key", "k1")
	if a.status != 429 || a.retry != 1800 {
		t.Fatalf("%+v", a)
	}
	wantItems(t, "policies", a.policies, item("ip", "q", int64(100), "w", int64(60)),
		item("key", "q", int64(2), "w", int64(3600)), item("key-route", "q", int64(100), "w", int64(60)))
	// Those that would have allowed it do not say when there is more.
	wantItems(t, "limits", a.limits, item("ip", "r", int64(98)), item("key", "r", int64(0), "t", int64(1800)), item("key-route", "r", int64(98)))
	// Nothing was spent under the others.
	if a := get(t, url, "X-API-Key", "k2"); a.status != 200 || a.limits[0].params["r"] != int64(97) {
		t.Errorf("%+v", a)
	}
}

func TestMiddlewareWithChi(t *testing.T) {
	l, _ := alone(t)
	r := chi.NewRouter()
	r.Use(Middleware{Limiter: l, Rules: []Rule{By(PerMinute("ip", 5), ClientIP(Trusted{}))}}.Wrap)
	r.With(Middleware{Limiter: l, Rules: []Rule{By(PerMinute("route", 1), Route())}}.Wrap).Get("/a/{id}", ok)
	r.Get("/b", ok)
	url := serve(t, r)
	for _, c := range []struct {
		path string
		want int
	}{{"/a/1", 200}, {"/a/2", 429}, {"/b", 200}, {"/b", 200}, {"/b", 200}, {"/b", 429}, {"/missing", 429}} {
		if a := get(t, url+c.path); a.status != c.want {
			t.Errorf("%s: %d, want %d", c.path, a.status, c.want)
		}
	}
}

func TestPolicyItems(t *testing.T) {
	for want, p := range map[string]Policy{
		`"a";q=100;w=60`:                   PerMinute("a", 100),
		`"b";q=1;w=1`:                      {Name: "b", Limit: 1, Period: 20 * time.Millisecond},
		`"c";q=999999999999999;w=86400`:    PerDay("c", MaxLimit),
		`"d";q=5;w=604800`:                 Calendar("d", 5, Week, nil),
		`"e";q=5`:                          Calendar("e", 5, Month, nil),
		`"f";q=3;qu="concurrent-requests"`: InFlight("f", 3, time.Second),
		`"g.h_i:j-k";q=2;w=2`:              {Name: "g.h_i:j-k", Limit: 2, Period: 1500 * time.Millisecond},
		`"h";q=10;w=3600`:                  {Name: "h", Limit: 10, Period: time.Hour, Burst: 20},
	} {
		got := string(appendPolicy(nil, &p))
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if _, err := parseSFList(got); err != nil {
			t.Error(err)
		}
	}
	d := Decision{Policy: "a", Remaining: MaxLimit, NextAfter: 1}
	if got := string(appendLimit(nil, &d, true)); got != `"a";r=999999999999999;t=1` {
		t.Error(got)
	}
}

func TestSkipCostAndSkippedRules(t *testing.T) {
	l, _ := alone(t)
	p := PerMinute("p", 10)
	optional := func(r *http.Request) (string, error) {
		if r.Header.Get("X-Key") == "" {
			return "", fmt.Errorf("no key: %w", ErrSkip)
		}
		return r.Header.Get("X-Key"), nil
	}
	url := serve(t, Middleware{
		Limiter: l,
		Rules: []Rule{{Policy: p, Key: optional, Cost: func(r *http.Request) int64 {
			n, _ := strconv.ParseInt(r.Header.Get("X-Cost"), 10, 64)
			return n
		}}},
		Skip: func(r *http.Request) bool { return r.URL.Path == "/healthz" },
	}.Wrap(ok))
	if a := get(t, url+"/healthz", "X-Key", "k", "X-Cost", "1"); a.status != 200 || a.policies != nil {
		t.Errorf("skipped: %+v", a)
	}
	if a := get(t, url); a.status != 200 || a.policies != nil {
		t.Errorf("skipped by its rule: %+v", a)
	}
	if a := get(t, url, "X-Key", "k", "X-Cost", "7"); a.status != 200 || a.limits[0].params["r"] != int64(3) {
		t.Errorf("cost 7: %+v", a)
	}
	if a := get(t, url, "X-Key", "k", "X-Cost", "0"); a.status != 200 || a.limits[0].params["r"] != int64(3) {
		t.Errorf("cost 0: %+v", a)
	}
	if a := get(t, url, "X-Key", "k", "X-Cost", "4"); a.status != 429 || a.retry != 6 {
		t.Errorf("cost 4 of 3: %+v", a)
	}
	for _, cost := range []string{"11", "-1"} {
		if a := get(t, url, "X-Key", "k", "X-Cost", cost); a.status != 400 || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("cost %s: %+v", cost, a)
		}
	}
}

func TestRequestWithoutAKeyIsRefused(t *testing.T) {
	l, _ := alone(t)
	key := func(*http.Request) (string, error) { return "", errors.New("secret detail") }
	for _, rules := range [][]Rule{{By(PerMinute("p", 10), key)}, {By(PerMinute("q", 10), Everyone()), By(PerMinute("p", 10), key)}} {
		a := get(t, serve(t, l.Handler(ok, rules...)))
		if a.status != 400 || !json.Valid(a.body) {
			t.Errorf("%+v", a)
		}
		if bytes.Contains(a.body, []byte("secret detail")) {
			t.Errorf("the error's text is sent: %s", a.body)
		}
	}
	if n, _ := l.Size(context.Background()); n != 0 {
		t.Errorf("%d keys", n)
	}
}

func TestCustomHandlers(t *testing.T) {
	l, _ := alone(t)
	var denial Denial
	url := serve(t, Middleware{
		Limiter: l,
		Rules:   []Rule{By(PerMinute("p", 1), Header("X-Key"))},
		Denied: func(w http.ResponseWriter, _ *http.Request, d Denial) {
			denial = d
			w.WriteHeader(http.StatusTeapot)
		},
		Error: func(w http.ResponseWriter, _ *http.Request, err error) {
			if !errors.Is(err, ErrNoKey) {
				t.Error(err)
			}
			w.WriteHeader(http.StatusUnauthorized)
		},
	}.Wrap(ok))
	get(t, url, "X-Key", "k")
	if a := get(t, url, "X-Key", "k"); a.status != 418 || a.retry != 60 || denial.RetryAfter != time.Minute ||
		len(denial.Decisions) != 1 || denial.Decisions[0].Policy != "p" || denial.Unavailable {
		t.Errorf("%+v %+v", a, denial)
	}
	if a := get(t, url); a.status != 401 {
		t.Errorf("%+v", a)
	}
}

func TestXRateLimitAsGitHubHasIt(t *testing.T) {
	l, clock := alone(t)
	url := serve(t, Middleware{
		Limiter:    l,
		XRateLimit: true,
		Rules:      []Rule{By(PerMinute("ip", 100), Everyone()), By(fixedNamed("day", 4), Everyone())},
	}.Wrap(ok))
	a := get(t, url)
	reset := strconv.FormatInt(clock.now().Add(24*time.Hour).Unix(), 10)
	if got := []string{a.header.Get("X-RateLimit-Limit"), a.header.Get("X-RateLimit-Remaining"), a.header.Get("X-RateLimit-Reset")}; !reflect.DeepEqual(got, []string{"4", "3", reset}) {
		t.Errorf("%v, want the tighter one's, until %s", got, reset)
	}
}

func TestJitterIsOnTop(t *testing.T) {
	l, _ := alone(t)
	url := serve(t, Middleware{Limiter: l, Jitter: 20 * time.Second, Rules: []Rule{By(PerMinute("p", 1), Everyone())}}.Wrap(ok))
	get(t, url)
	seen := map[int64]bool{}
	for range 60 {
		a := get(t, url)
		if a.retry < 60 || a.retry > 80 {
			t.Fatalf("Retry-After %d", a.retry)
		}
		seen[a.retry] = true
	}
	if len(seen) < 5 {
		t.Errorf("%d different values in 60", len(seen))
	}
}

func TestShadowAndUnlimitedAreNotTold(t *testing.T) {
	l, _ := alone(t)
	shadow := PerMinute("shadow", 1)
	shadow.Shadow = true
	url := serve(t, l.Handler(ok, By(shadow, Everyone()), By(Policy{Name: "free", Unlimited: true}, Everyone()), By(PerMinute("p", 9), Everyone())))
	for range 3 {
		a := get(t, url)
		if a.status != 200 {
			t.Fatalf("%+v", a)
		}
		wantItems(t, "policies", a.policies, item("p", "q", int64(9), "w", int64(60)))
		if len(a.limits) != 1 {
			t.Errorf("%v", a.limits)
		}
	}
}

func TestHeadersFollowStoredPolicies(t *testing.T) {
	l, _ := alone(t)
	url := serve(t, l.Handler(ok, By(PerMinute("p", 10), Header("X-Key"))))
	wantItems(t, "before", get(t, url, "X-Key", "a").policies, item("p", "q", int64(10), "w", int64(60)))
	if _, err := l.SetOverride(context.Background(), "p", Override{Key: "b", Times: 10}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantItems(t, "an override's", get(t, url, "X-Key", "b").policies, item("p", "q", int64(100), "w", int64(60)))
		wantItems(t, "another key's", get(t, url, "X-Key", "a").policies, item("p", "q", int64(10), "w", int64(60)))
	}
}

func TestPlacesAreHeldWhileAHandlerRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		in, out := make(chan bool), make(chan bool)
		slow := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { in <- true; <-out })
		busy := InFlight("busy", 1, 3*time.Second)
		h := l.Handler(slow, By(busy, Everyone()), By(PerDay("p", 2), Everyone()))
		ask := func() *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			return w
		}
		var wg sync.WaitGroup
		wg.Go(func() { ask() })
		<-in
		time.Sleep(time.Minute) // longer than a place lasts by itself
		if w := ask(); w.Code != 429 || w.Header().Get("RateLimit-Policy") != `"busy";q=1;qu="concurrent-requests"` {
			t.Errorf("%+v", w)
		}
		out <- true
		wg.Wait()
		wg.Go(func() { ask() }) // the denial spent nothing of p
		<-in
		out <- true
		wg.Wait()
		if w := ask(); w.Code != 429 || !strings.Contains(w.Body.String(), `"violated-policies":["p"]`) {
			t.Errorf("%+v", w)
		}
		// Denied by the rate: its place is free again.
		if d, err := l.Status(context.Background(), busy, "everyone"); err != nil || !d.Allowed {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

func TestHandlerPanicsOnWhatCannotWork(t *testing.T) {
	l, _ := alone(t)
	for name, f := range map[string]func(){
		"policy":  func() { l.Handler(ok, By(Policy{}, Everyone())) },
		"key":     func() { l.Handler(ok, Rule{Policy: PerMinute("p", 1)}) },
		"limiter": func() { Middleware{}.Wrap(ok) },
		"trusted": func() { Middleware{Limiter: l, Trusted: Trusted{Hops: 3}}.Wrap(ok) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestHandlersWithFakes(t *testing.T) {
	rule := By(PerMinute("ip", 5), ClientIP(Trusted{}))
	if a := get(t, serve(t, AlwaysAllow.Handler(ok, rule))); a.status != 200 || a.limits[0].params["r"] != int64(5) {
		t.Errorf("%+v", a)
	}
	two := []Rule{rule, By(InFlight("c", 1, time.Second), Everyone()), By(PerMinute("p", 1), Everyone())}
	if a := get(t, serve(t, AlwaysDeny.Handler(ok, rule))); a.status != 429 || a.retry != 1 {
		t.Errorf("%+v", a)
	}
	if a := get(t, serve(t, AlwaysAllow.Handler(ok, two...))); a.status != 200 {
		t.Errorf("%+v", a)
	}
}

func TestClosedLimiterAnswers503(t *testing.T) {
	l, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := l.Handler(ok, By(PerMinute("p", 1), Everyone()))
	l.Close()
	if a := get(t, serve(t, h)); a.status != 503 {
		t.Errorf("%+v", a)
	}
}

// An allowed request costs four allocations: its key, a header's value, the
// slice that holds that, and room in the header.
func TestMiddlewareAllocations(t *testing.T) {
	l, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), By(PerDay("ip", MaxLimit), ClientIP(Trusted{})))
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "203.0.113.7:4711"
	w := &discardWriter{}
	if n := testing.AllocsPerRun(1000, func() {
		w.header = make(http.Header)
		h.ServeHTTP(w, r)
	}); n > 5 { // with the header itself
		t.Errorf("%v allocations", n)
	}
}
