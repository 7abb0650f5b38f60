package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := false
		var clients []string
		_, ms := newCluster(t, 1, func(c *Config) {
			c.FailureLimit = func(_ context.Context, client string, failures int) time.Duration {
				if failures > 0 {
					clients = append(clients, client)
				}
				if throttle && failures == 0 {
					return 1500 * time.Millisecond
				}
				return 0
			}
		})
		m := ms[0]
		k, key := m.create(t, Spec{Scopes: []string{"orders:read"}})
		disabled, disabledKey := m.create(t, Spec{})
		mustReceipt(t)(m.Disable(t.Context(), disabled.ID))
		_, expiredKey := m.create(t, Spec{ExpiresAt: time.Now().Add(time.Millisecond)})
		_, down := m.create(t, Spec{})
		time.Sleep(time.Second)

		ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p, found := FromContext(r.Context())
			id, err := KeyID(r)
			project, projectErr := Project(r)
			if !found {
				if !errors.Is(err, ErrNoPrincipal) || !errors.Is(projectErr, ErrNoPrincipal) {
					t.Error(err, projectErr)
				}
				fmt.Fprint(w, "anonymous")
				return
			}
			if id != p.ID || err != nil || project != p.Project || projectErr != nil {
				t.Error(id, project, err, projectErr)
			}
			fmt.Fprint(w, p.ID)
		})
		plain := m.Handler(ok)
		reads := m.Handler(RequireScope("orders:read")(ok))
		writes := m.Handler(RequireScope("orders:read", "orders:write")(ok))
		optional := m.HandlerWith(HTTPConfig{Optional: true, Realm: "a\"b\\c\n", Extract: AnyOf(Bearer, QueryParam("key"))}, ok)

		bearer := func(k string) http.Header { return http.Header{"Authorization": {"Bearer " + k}} }
		for _, test := range []struct {
			name      string
			h         http.Handler
			header    http.Header
			query     string
			status    int
			challenge string
			detail    string
		}{
			{"bearer", plain, bearer(key), "", 200, "", k.ID},
			{"bearer in another case", plain, http.Header{"Authorization": {"bEaReR   " + key + " "}}, "", 200, "", k.ID},
			{"header", plain, http.Header{"X-Api-Key": {key}}, "", 200, "", k.ID},
			{"scope", reads, bearer(key), "", 200, "", k.ID},
			{"another scheme", plain, http.Header{"Authorization": {"Basic " + key}}, "", 401, `Bearer realm="api"`, "an API key is required"},
			{"nothing", plain, nil, "", 401, `Bearer realm="api"`, "an API key is required"},
			{"empty bearer", plain, http.Header{"Authorization": {"Bearer "}}, "", 401, `Bearer realm="api"`, "an API key is required"},
			{"query is not looked at", plain, nil, "key=" + key + "&api_key=" + key, 401, `Bearer realm="api"`, "an API key is required"},
			{"both", plain, http.Header{"Authorization": {"Bearer " + key}, "X-Api-Key": {key}}, "", 400, `Bearer realm="api", error="invalid_request", error_description="the request has to carry exactly one API key"`, "the request has to carry exactly one API key"},
			{"twice", plain, http.Header{"X-Api-Key": {key, key}}, "", 400, `Bearer realm="api", error="invalid_request", error_description="the request has to carry exactly one API key"`, "the request has to carry exactly one API key"},
			{"malformed", plain, bearer(key + "x"), "", 401, `Bearer realm="api", error="invalid_token", error_description="the API key is malformed"`, "the API key is malformed"},
			{"unknown", plain, bearer("no-such-key-at-all"), "", 401, `Bearer realm="api", error="invalid_token", error_description="the API key is not known"`, "the API key is not known"},
			{"disabled", plain, bearer(disabledKey), "", 401, `Bearer realm="api", error="invalid_token", error_description="the API key is disabled"`, "the API key is disabled"},
			{"expired", plain, bearer(expiredKey), "", 401, `Bearer realm="api", error="invalid_token", error_description="the API key has expired"`, "the API key has expired"},
			{"scope missing", writes, bearer(key), "", 403, `Bearer realm="api", error="insufficient_scope", error_description="the API key lacks a scope", scope="orders:read orders:write"`, "the API key lacks a scope"},
			{"guard without handler", RequireScope("s")(ok), bearer(key), "", 401, `Bearer realm="api", scope="s"`, "an API key is required"},
			{"optional, none", optional, nil, "", 200, "", "anonymous"},
			{"optional, good", optional, nil, "key=" + key, 200, "", k.ID},
			{"optional, wrong", optional, nil, "key=nonsense", 401, `Bearer realm="abc", error="invalid_token", error_description="the API key is not known"`, "the API key is not known"},
			{"optional, two", optional, nil, "key=a&key=b", 400, `Bearer realm="abc", error="invalid_request", error_description="the request has to carry exactly one API key"`, "the request has to carry exactly one API key"},
		} {
			rec := request(test.h, test.header, test.query)
			t.Log(test.name) // shown with what follows, if that fails
			checkProblem(t, rec, test.status, test.detail, key)
			if got := rec.Header().Get("WWW-Authenticate"); got != test.challenge {
				t.Errorf("WWW-Authenticate: %s\nwant              %s", got, test.challenge)
			}
		}
		if len(clients) != 5 { // malformed, unknown, disabled, expired, and unknown again
			t.Errorf("%d failures counted, want 5: %v", len(clients), clients)
		}
		for _, c := range clients {
			if c != "192.0.2.1" {
				t.Errorf("client %q, want the connection's address", c)
			}
		}

		throttle = true
		rec := request(plain, bearer("another-unknown-key"), "")
		checkProblem(t, rec, 429, "too many failed attempts from this client", key)
		if got := rec.Header().Get("Retry-After"); got != "2" {
			t.Errorf("Retry-After %q, want 1.5 s rounded up", got)
		}
		throttle = false

		m.store.down.Store(true)
		rec = request(plain, bearer(down), "")
		checkProblem(t, rec, 503, "API keys can't be verified now", down)
		if rec.Header().Get("Retry-After") != "1" || rec.Header().Get("WWW-Authenticate") != "" {
			t.Errorf("headers %v", rec.Header())
		}
		if rec := request(plain, bearer(key), ""); rec.Code != 200 {
			t.Errorf("a cached key while the store is down: %d", rec.Code)
		}
	})
}

func request(h http.Handler, header http.Header, query string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/orders?"+query, nil)
	r.RemoteAddr = "192.0.2.1:1234"
	for name, values := range header {
		r.Header[name] = values
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

func checkProblem(t *testing.T, rec *httptest.ResponseRecorder, status int, detail, key string) {
	t.Helper()
	body := rec.Body.String()
	if rec.Code != status {
		t.Fatalf("status %d, want %d: %s", rec.Code, status, body)
	}
	if strings.Contains(body+fmt.Sprint(rec.Header()), key) {
		t.Errorf("the answer repeats the key: %s %v", body, rec.Header())
	}
	if status == http.StatusOK {
		if body != detail {
			t.Errorf("body %q, want %q", body, detail)
		}
		return
	}
	var p map[string]any
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if rec.Header().Get("Content-Type") != "application/problem+json" || rec.Header().Get("Cache-Control") != "no-store" ||
		p["type"] != "about:blank" || p["title"] != http.StatusText(status) || p["status"] != float64(status) || p["detail"] != detail {
		t.Errorf("problem %v, headers %v", p, rec.Header())
	}
}

func TestRemoteClient(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64", "[::ffff:192.0.2.1]:80": "192.0.2.1",
		"[fe80::1%eth0]:80": "fe80::/64", "@": "@", "": "", "pipe": "pipe",
	} {
		if got := RemoteClient(&http.Request{RemoteAddr: addr}); got != want {
			t.Errorf("client of %q: %q, want %q", addr, got, want)
		}
	}
}

func FuzzExtract(f *testing.F) {
	f.Add("Bearer pl_live_x", "", "key=a")
	f.Add("bearer", "k", "%zz")
	f.Add("Bearer  \x00", "\xff", "key=a&key=b")
	all := AnyOf(Bearer, Header("X-API-Key"), QueryParam("key"))
	f.Fuzz(func(t *testing.T, authorization, header, query string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Authorization"], r.Header["X-Api-Key"] = []string{authorization}, []string{header}
		r.URL.RawQuery = query
		key, err := all(r)
		if err != nil && key != "" {
			t.Fatal("a key beside an error")
		}
		if err == nil && key != "" && key != header && !strings.Contains(authorization, key) && r.URL.Query().Get("key") != key {
			t.Fatalf("key %q is from nowhere", key)
		}
		_ = RemoteClient(&http.Request{RemoteAddr: authorization})
	})
}
