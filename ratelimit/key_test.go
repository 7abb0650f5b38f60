package ratelimit

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
)

func TestHeaderKey(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	key := Header("x-api-key")
	for _, c := range []struct {
		values []string
		want   string
	}{
		{nil, ""}, {[]string{""}, ""}, {[]string{"a", "b"}, ""}, {[]string{"abc"}, "abc"},
	} {
		r.Header["X-Api-Key"] = c.values
		if got, err := key(r); got != c.want || (c.want == "") != errors.Is(err, ErrNoKey) {
			t.Errorf("%q: %q, %v", c.values, got, err)
		}
	}
	long := strings.Repeat("x", 100_000)
	r.Header.Set("X-API-Key", long)
	hashed, err := key(r)
	if err != nil || len(hashed) > 64 || !strings.HasPrefix(hashed, "sha256:") {
		t.Fatalf("%q, %v", hashed, err)
	}
	// Nobody shares a long key's bucket by sending its hash.
	r.Header.Set("X-API-Key", hashed)
	if got, _ := key(r); got == hashed {
		t.Error("a hash counts as what was hashed")
	}
	if a, b := Hashed(long), Hashed(long+"x"); a == b {
		t.Error("two long keys are one")
	}
}

func TestSecretKey(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer abc")
	key := Secret(Header("Authorization"))
	got, err := key(r)
	if err != nil || strings.Contains(got, "abc") || len(got) > 64 {
		t.Errorf("%q, %v", got, err)
	}
	if again, _ := key(r); again != got {
		t.Error("not the same twice")
	}
	r.Header.Del("Authorization")
	if _, err := key(r); !errors.Is(err, ErrNoKey) {
		t.Errorf("%v", err)
	}
}

func TestJoinIsUnambiguous(t *testing.T) {
	is := func(s string) KeyFunc { return func(*http.Request) (string, error) { return s, nil } }
	r := httptest.NewRequest("GET", "/", nil)
	seen := make(map[string]int)
	for i, keys := range [][]KeyFunc{
		{is("a"), is("b")}, {is("ab"), is("")}, {is("a1:b")}, {is("ab")}, {is("1:a"), is("b")}, {is("a"), is("b"), is("")},
		{is(strings.Repeat("x", 2000)), is("y")}, {is(strings.Repeat("x", 2000)), is("z")},
	} {
		got, err := Join(keys...)(r)
		if err != nil || len(got) > MaxKeyLen {
			t.Fatalf("%d: %q, %v", i, got, err)
		}
		if j, is := seen[got]; is {
			t.Errorf("%d and %d are both %q", i, j, got)
		}
		seen[got] = i
	}
	if _, err := Join(is("a"), Header("X-Missing"))(r); !errors.Is(err, ErrNoKey) {
		t.Errorf("%v", err)
	}
}

func TestRouteKey(t *testing.T) {
	var got string
	var err error
	note := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got, err = Route()(r) })
	mux := http.NewServeMux()
	mux.Handle("GET /items/{id}", note)
	mux.Handle("/any/{path...}", note)
	router := chi.NewRouter()
	router.Route("/v1", func(r chi.Router) { r.Method("GET", "/things/{id}", note) })
	for _, c := range []struct {
		handler      http.Handler
		method, path string
		want         string
	}{
		{mux, "GET", "/items/7", "GET /items/{id}"},
		{mux, "GET", "/items/8", "GET /items/{id}"},
		{mux, "POST", "/any/a/b", "POST /any/{path...}"},
		{mux, "MADEUP", "/any/a/b", "other /any/{path...}"},
		{router, "GET", "/v1/things/9", "GET /v1/things/{id}"},
		{note, "GET", "/items/7", ""},
	} {
		got, err = "", nil
		c.handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(c.method, c.path, nil))
		if got != c.want || (c.want == "") != errors.Is(err, ErrNoKey) {
			t.Errorf("%s %s: %q, %v; want %q", c.method, c.path, got, err, c.want)
		}
	}
}
