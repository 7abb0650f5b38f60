package ratelimit

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"pgregory.net/rapid"
)

// aName draws a policy's name; anInteger draws one that is short as often as
// long.
func aName() *rapid.Generator[string] { return rapid.StringMatching(`[a-zA-Z0-9._:-]{1,64}`) }

func anInteger(most int64) *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64Range(0, min(most, 1000)), rapid.Int64Range(0, most))
}

// What is written by hand is what the library would write, of any number of
// policies, in one piece or two.
func TestLimitItemsEqualTheLibrarys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b []byte
		var list httpsfv.List
		for i := range rapid.IntRange(1, 3).Draw(t, "policies") {
			d := Decision{
				Policy:    aName().Draw(t, "name"),
				Remaining: anInteger(MaxLimit).Draw(t, "remaining"),
				NextAfter: time.Duration(anInteger(int64(MaxPeriod)).Draw(t, "next")),
			}
			withReset := rapid.Bool().Draw(t, "with reset")
			item := httpsfv.NewItem(d.Policy)
			item.Params.Add("r", min(d.Remaining, maxSFInteger))
			if withReset && d.NextAfter > 0 {
				item.Params.Add("t", int64((d.NextAfter+time.Second-1)/time.Second))
			}
			list = append(list, item)
			if i > 0 {
				b = append(b, ", "...)
			}
			b = appendLimit(b, &d, withReset)
		}
		want, err := httpsfv.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		got := fieldOf(b)
		clear(b) // it keeps a copy
		if len(got) != 1 || cap(got) != 1 || got[0] != want {
			t.Fatalf("%q with room for %d, want %q", got, cap(got), want)
		}
	})
}

// The headers of a handler are the library's over any policies, also while it
// keeps what it wrote before: stored policies change their numbers, and
// overrides give keys their own.
func TestHeadersOfChangingPolicies(t *testing.T) {
	h := &handler{Middleware: Middleware{Limiter: AlwaysAllow}}
	rapid.Check(t, func(t *rapid.T) {
		var all []asked
		var policies, limits httpsfv.List
		for range rapid.IntRange(1, 3).Draw(t, "policies") {
			p := Policy{
				Name:   rapid.SampledFrom([]string{"a", "b", "api"}).Draw(t, "name"),
				Limit:  rapid.OneOf(rapid.Int64Range(1, 3), rapid.Int64Range(1, MaxLimit)).Draw(t, "limit"),
				Period: time.Duration(rapid.Int64Range(1, 4).Draw(t, "period")) * time.Minute,
				Shadow: rapid.IntRange(0, 3).Draw(t, "shadow") == 0,
			}
			if rapid.Bool().Draw(t, "aligned") {
				p.Algorithm, p.Align, p.Period = FixedWindow, rapid.SampledFrom([]Alignment{Day, Month}).Draw(t, "align"), 0
			}
			d := Decision{Allowed: true, Policy: p.Name, Limit: p.Limit, Remaining: p.Limit - 1, NextAfter: time.Minute}
			all = append(all, asked{p, d})
			if p.Shadow {
				continue
			}
			item := httpsfv.NewItem(p.Name)
			item.Params.Add("q", min(p.Limit, maxSFInteger))
			switch p.Align {
			case Unaligned:
				item.Params.Add("w", int64(p.Period/time.Second))
			case Day:
				item.Params.Add("w", int64(86400))
			}
			policies = append(policies, item)
			item = httpsfv.NewItem(p.Name)
			item.Params.Add("r", min(d.Remaining, maxSFInteger))
			item.Params.Add("t", int64(60))
			limits = append(limits, item)
		}
		header := make(http.Header)
		h.setHeaders(header, all, true)
		for name, list := range map[string]httpsfv.List{"RateLimit-Policy": policies, "RateLimit": limits} {
			var want []string
			if len(list) > 0 {
				s, err := httpsfv.Marshal(list)
				if err != nil {
					t.Fatal(err)
				}
				want = []string{s}
			}
			if got := header.Values(name); !slices.Equal(got, want) {
				t.Fatalf("%s: %q, want %q", name, got, want)
			}
		}
	})
}

// An allowed request costs one allocation beyond what its response is made of.
func TestAllocationsOfAnAllowedRequest(t *testing.T) {
	l, _ := alone(t)
	h := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), By(PerMinute("ip", MaxLimit), ClientIP(Trusted{})))
	r := &http.Request{RemoteAddr: "203.0.113.7:4711"}
	w := &discardWriter{make(http.Header)}
	h.ServeHTTP(w, r)
	if n := testing.AllocsPerRun(200, func() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}); n > 1 {
		t.Errorf("%v allocations, want 1", n)
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		-5: 0, 0: 0, 1: 1, time.Second - 1: 1, time.Second: 1, time.Second + 1: 2, 1<<63 - 1: 9223372036,
	} {
		if got := seconds(d); got != want {
			t.Errorf("%d: %d, want %d", d, got, want)
		}
	}
}

// Retry-After is of the policies that deny, and not of the others.
func TestRetrySeconds(t *testing.T) {
	for want, all := range map[int64][]asked{
		1: {{decision: Decision{}}},
		3: {{decision: Decision{RetryAfter: 2001 * time.Millisecond}}, {decision: Decision{Allowed: true, NextAfter: time.Hour}}},
		9: {{decision: Decision{RetryAfter: 2 * time.Second}}, {decision: Decision{RetryAfter: 9 * time.Second, NextAfter: time.Second}}},
	} {
		if got := retrySeconds(all); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
}

// Headers that responses share are not changed by what a handler adds to one.
func TestSharedHeadersStayTheirOwn(t *testing.T) {
	l, _ := alone(t)
	h := l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("RateLimit-Policy", `"mine";q=1`)
	}), By(PerMinute("p", 9), Everyone()))
	for range 3 {
		w := &discardWriter{make(http.Header)}
		h.ServeHTTP(w, &http.Request{})
		if got := w.header.Values("RateLimit-Policy"); len(got) != 2 || got[0] != `"p";q=9;w=60` {
			t.Fatalf("%q", got)
		}
	}
}
