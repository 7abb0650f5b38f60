package ratelimit

import (
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
)

// What is written by hand is what the library would write.
func TestLimitItemsEqualTheLibrarys(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	const letters = "abcXYZ019._:-"
	for range 5000 {
		name := make([]byte, 1+rnd.IntN(MaxNameLen))
		for i := range name {
			name[i] = letters[rnd.IntN(len(letters))]
		}
		d := Decision{Policy: string(name), Remaining: rnd.Int64N(maxSFInteger + 1), NextAfter: time.Duration(rnd.Int64N(int64(time.Hour)))}
		item := httpsfv.NewItem(d.Policy)
		item.Params.Add("r", d.Remaining)
		if d.NextAfter > 0 {
			item.Params.Add("t", int64((d.NextAfter+time.Second-1)/time.Second))
		}
		want, err := httpsfv.Marshal(httpsfv.List{item})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(appendLimit(nil, &d, true)); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
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
