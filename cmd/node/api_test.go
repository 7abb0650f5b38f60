package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/cluster/admin"
	"github.com/peerlimit/peerlimit/ratelimit"
)

const validCheck = `{"key":"k","limit":3,"period":"24h","algorithm":"fixed-window"}`

// testAPI is the HTTP API of this process alone.
func testAPI(t *testing.T, access *tokens) *handler {
	t.Helper()
	limits, err := ratelimit.New(ratelimit.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, limits.Close()) })
	h := newHandler(access, testProbes(new(probes)))
	h.open((&ratelimitAPI{limits: limits, mode: ratelimit.FailOpen, log: slog.New(slog.DiscardHandler)}).routes())
	return h
}

func testProbes(p *probes) []route { return probeRoutes(admin.New(admin.Config{Ready: p.ready})) }

func testPage() []route { return (&clusterAPI{view: admin.New(admin.Config{})}).routes() }

type answer struct {
	status int
	header http.Header
	body   string
}

func ask(h http.Handler, method, path, body string, header ...string) answer {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.String()}
}

func (a answer) problem(t *testing.T) (p problem) {
	t.Helper()
	assert.Equal(t, "application/problem+json", a.header.Get("Content-Type"))
	require.NoError(t, json.Unmarshal([]byte(a.body), &p), a.body)
	assert.Equal(t, a.status, p.Status)
	assert.Equal(t, "about:blank", p.Type)
	assert.Equal(t, http.StatusText(a.status), p.Title)
	return p
}

func keysHeld(t *testing.T, h http.Handler) (n int) {
	t.Helper()
	var size struct{ Keys int }
	a := ask(h, "GET", "/v1/ratelimit", "")
	require.NoError(t, json.Unmarshal([]byte(a.body), &size), a.body)
	return size.Keys
}

func TestCheckAllowsUpToTheLimit(t *testing.T) {
	h := testAPI(t, &tokens{})
	for i := range 3 {
		a := ask(h, "POST", "/v1/ratelimit/check", validCheck)
		assert.Equal(t, 200, a.status)
		assert.Equal(t, "application/json", a.header.Get("Content-Type"))
		var d decision
		require.NoError(t, json.Unmarshal([]byte(a.body), &d))
		assert.True(t, d.Allowed)
		assert.Equal(t, int64(3), d.Limit)
		assert.Equal(t, int64(2-i), d.Remaining)
		assert.Zero(t, d.RetryAfterMS)
		assert.Equal(t, "default", d.Policy)
		assert.Empty(t, a.header.Get("Retry-After"))
	}
	denied := ask(h, "POST", "/v1/ratelimit/check", validCheck)
	assert.Equal(t, 429, denied.status)
	var d decision
	require.NoError(t, json.Unmarshal([]byte(denied.body), &d))
	assert.False(t, d.Allowed)
	assert.InDelta(t, 24*3600*1000, d.RetryAfterMS, 10_000)
	assert.Equal(t, `"default";q=3;w=86400`, denied.header.Get("RateLimit-Policy"))
	assert.Equal(t, `"default";r=0;t=86400`, denied.header.Get("RateLimit"))
	assert.Equal(t, "86400", denied.header.Get("Retry-After"))

	other := ask(h, "POST", "/v1/ratelimit/check", strings.Replace(validCheck, "}", `,"policy":"other"}`, 1))
	assert.Equal(t, 200, other.status, "state belongs to policy and key")
}

func TestStatusAnswersTheSameAndSpendsNothing(t *testing.T) {
	h := testAPI(t, &tokens{})
	for range 5 {
		a := ask(h, "POST", "/v1/ratelimit/status", validCheck)
		assert.Equal(t, 200, a.status)
		assert.Contains(t, a.body, `"remaining":3`)
	}
	for range 3 {
		ask(h, "POST", "/v1/ratelimit/check", validCheck)
	}
	a := ask(h, "POST", "/v1/ratelimit/status", validCheck)
	assert.Equal(t, 429, a.status)
	assert.Contains(t, a.body, `"allowed":false`)
	assert.NotEmpty(t, a.header.Get("Retry-After"))
}

func TestSeveralChecksAreAllOrNothing(t *testing.T) {
	h := testAPI(t, &tokens{})
	both := `{"checks":[{"key":"a","limit":5,"period":"24h","cost":2},{"key":"b","limit":3,"period":"24h","cost":2,"policy":"second"}]}`
	a := ask(h, "POST", "/v1/ratelimit/check", both)
	require.Equal(t, 200, a.status, a.body)
	var all struct {
		Allowed   bool
		Decisions []decision
	}
	require.NoError(t, json.Unmarshal([]byte(a.body), &all))
	assert.True(t, all.Allowed)
	require.Len(t, all.Decisions, 2)

	a = ask(h, "POST", "/v1/ratelimit/check", both)
	assert.Equal(t, 429, a.status, "the second has 1 left")
	assert.Contains(t, a.header.Get("RateLimit-Policy"), `"second";q=3;w=86400`)
	assert.NotContains(t, a.header.Get("RateLimit-Policy"), `"default"`, "that was not violated")
	assert.NotEmpty(t, a.header.Get("Retry-After"))
	left := ask(h, "POST", "/v1/ratelimit/status", `{"key":"a","limit":5,"period":"24h"}`)
	assert.Contains(t, left.body, `"remaining":3`, "the first was not spent")

	a = ask(h, "POST", "/v1/ratelimit/check", strings.Replace(both, `{"checks"`, `{"independent":true,"checks"`, 1))
	assert.Equal(t, 200, a.status)
	require.NoError(t, json.Unmarshal([]byte(a.body), &all))
	assert.False(t, all.Allowed)
	assert.True(t, all.Decisions[0].Allowed)
	assert.False(t, all.Decisions[1].Allowed)
}

func TestReset(t *testing.T) {
	h := testAPI(t, &tokens{})
	use := func(key string) {
		body := fmt.Sprintf(`{"key":%q,"limit":3,"period":"24h","cost":3}`, key)
		require.Equal(t, 200, ask(h, "POST", "/v1/ratelimit/check", body).status)
	}
	for _, key := range []string{"a/b", "a?c=d", "é", "x y"} {
		use(key)
	}
	require.Equal(t, 4, keysHeld(t, h))
	for _, path := range []string{"a%2Fb", "a%3Fc=d", "%C3%A9", "x%20y"} {
		a := ask(h, "DELETE", "/v1/ratelimit/"+path, "")
		assert.Equal(t, 204, a.status, a.body)
		assert.Empty(t, a.body)
	}
	assert.Equal(t, 0, keysHeld(t, h))
	for _, key := range []string{"t1:a", "t1:b", "t2:a"} {
		use(key)
	}
	a := ask(h, "DELETE", "/v1/ratelimit?prefix=t1:", "")
	assert.Equal(t, 200, a.status)
	assert.JSONEq(t, `{"removed":2}`, a.body)
	assert.Equal(t, 1, keysHeld(t, h))
	a = ask(h, "DELETE", "/v1/ratelimit?policy=other", "")
	assert.JSONEq(t, `{"removed":0}`, a.body)
	a = ask(h, "DELETE", "/v1/ratelimit", "")
	assert.JSONEq(t, `{"removed":1}`, a.body)

	for path, field := range map[string]string{
		"/v1/ratelimit?prefx=t1:":         "prefx",
		"/v1/ratelimit?policy=a+b":        "policy",
		"/v1/ratelimit?prefix=a&prefix=b": "prefix",
		"/v1/ratelimit?%zz":               "query",
		"/v1/ratelimit/k?policy=":         "policy",
		"/v1/ratelimit/k?polcy=x":         "polcy",
		"/v1/ratelimit/":                  "key",
	} {
		a := ask(h, "DELETE", path, "")
		require.Equal(t, 400, a.status, path)
		assert.Equal(t, field, a.problem(t).Errors[0].Field, path)
	}
}

// badChecks are checks with one mistake, and the field that must be named. The
// end-to-end tests send the same kinds to a real member.
var badChecks = []struct{ body, field string }{
	{`{"limit":1,"period":"1s"}`, "key"},
	{`{"key":"","limit":1,"period":"1s"}`, "key"},
	{`{"key":1,"limit":1,"period":"1s"}`, "key"},
	{`{"key":null,"limit":1,"period":"1s"}`, "key"},
	{`{"key":"` + strings.Repeat("k", ratelimit.MaxKeyLen+1) + `","limit":1,"period":"1s"}`, "key"},
	{`{"key":"` + strings.Repeat("k", 2<<20) + `","limit":1,"period":"1s"}`, "key"},
	{`{"key":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `,"limit":1,"period":"1s"}`, "key"},
	{`{"key":"k","period":"1s"}`, "limit"},
	{`{"key":"k","limit":"1","period":"1s"}`, "limit"},
	{`{"key":"k","limit":-1,"period":"1s"}`, "limit"},
	{`{"key":"k","limit":0,"period":"1s"}`, "limit"},
	{`{"key":"k","limit":9007199254740993,"period":"1s"}`, "limit"},
	{`{"key":"k","limit":1e400,"period":"1s"}`, "limit"},
	{`{"key":"k","limit":1.5,"period":"1s"}`, "limit"},
	{`{"key":"k","limit":NaN,"period":"1s"}`, "limit"},
	{`{"key":"k","limit":"NaN","period":"1s"}`, "limit"},
	{`{"key":"k","limit":Infinity,"period":"1s"}`, "limit"},
	{`{"key":"k","limit":1}`, "period"},
	{`{"key":"k","limit":1,"period":""}`, "period"},
	{`{"key":"k","limit":1,"period":60}`, "period"},
	{`{"key":"k","limit":1,"period":"-1s"}`, "period"},
	{`{"key":"k","limit":1,"period":"0s"}`, "period"},
	{`{"key":"k","limit":1,"period":"1000000h"}`, "period"},
	{`{"key":"k","limit":1,"period":"NaNs"}`, "period"},
	{`{"key":"k","limit":1,"period":"1s","burst":0}`, "burst"},
	{`{"key":"k","limit":1,"period":"1s","burst":-1}`, "burst"},
	{`{"key":"k","limit":1,"period":"1s","burst":"2"}`, "burst"},
	{`{"key":"k","limit":1,"period":"1s","burst":9007199254740993}`, "burst"},
	{`{"key":"k","limit":1,"period":"1s","burst":5,"algorithm":"fixed-window"}`, "burst"},
	{`{"key":"k","limit":1,"period":"1s","cost":0}`, "cost"},
	{`{"key":"k","limit":1,"period":"1s","cost":-1}`, "cost"},
	{`{"key":"k","limit":1,"period":"1s","cost":2}`, "cost"},
	{`{"key":"k","limit":1,"period":"1s","cost":true}`, "cost"},
	{`{"key":"k","limit":1,"period":"1s","cost":9007199254740993}`, "cost"},
	{`{"key":"k","limit":1,"period":"1s","algorithm":""}`, "algorithm"},
	{`{"key":"k","limit":1,"period":"1s","algorithm":"leaky"}`, "algorithm"},
	{`{"key":"k","limit":1,"period":"1s","algorithm":"concurrency"}`, "algorithm"},
	{`{"key":"k","limit":1,"period":"1s","algorithm":7}`, "algorithm"},
	{`{"key":"k","limit":1,"period":"1s","policy":""}`, "policy"},
	{`{"key":"k","limit":1,"period":"1s","policy":"a b"}`, "policy"},
	{`{"key":"k","limit":1,"period":"1s","policy":["x"]}`, "policy"},
	{`{"key":"k","limit":1,"period":"1s","policy":"` + strings.Repeat("p", 65) + `"}`, "policy"},
	{`{"key":"k","limit":1,"period":"1s","shadow":"yes"}`, "shadow"},
	{`{"key":"k","limit":1,"period":"1s","synchronous":1}`, "synchronous"},
	{`{"key":"k","limit":1,"period":"1s","limt":1}`, "limt"},
	{`{"key":"k","key":"l","limit":1,"period":"1s"}`, "key"},
	{`{"key":"k","limit":1,"period":"1s","independent":true}`, "independent"},
	{`{"checks":[]}`, "checks"},
	{`{"checks":{}}`, "checks"},
	{`{"checks":[{"key":"k","limit":1,"period":"1s"}],"key":"k"}`, "key"},
	{`{"checks":[{"key":"k","limit":1,"period":"1s"},{"key":"k","limit":0,"period":"1s"}]}`, "checks[1].limit"},
	{`{"checks":[{"key":"k","limit":1,"period":"1s"},{"limit":1,"period":"1s"}]}`, "checks[1].key"},
	{`{"checks":[{"key":"k","limit":1,"period":"1s"},{"key":"","limit":1,"period":"1s"}]}`, "checks[1].key"},
	{`{"checks":[{"key":"k","limit":1,"period":"1s"},{"key":"k","limit":1,"period":"1s","cost":2}]}`, "checks[1].cost"},
	{`{"independent":true,"checks":[{"key":"k","limit":1,"period":"1s"},{"key":"","limit":1,"period":"1s"}]}`, "checks[1].key"},
	{`{"independent":true,"checks":[{"key":"k","limit":1,"period":"1s"},{"key":"k","limit":1,"period":"1s","cost":2}]}`, "checks[1].cost"},
	{`{"independent":true,"checks":[{"key":"k","limit":1,"period":"1s"},{"key":"k","limit":1,"period":"1s","policy":"%"}]}`, "checks[1].policy"},
	{`{"independent":1,"checks":[{"key":"k","limit":1,"period":"1s"}]}`, "independent"},
	{`{"checks":[` + strings.Repeat(`{"key":"k","limit":1,"period":"1s"},`, 100) + `{"key":"k","limit":1,"period":"1s"}]}`, "checks"},
	{``, "body"},
	{`[]`, "body"},
	{`null`, "body"},
	{validCheck + validCheck, "body"},
	{validCheck + strings.Repeat(" ", 2<<20), "body"},
	{"\xff", "body"},
}

func TestBadInputNamesTheFieldAndSpendsNothing(t *testing.T) {
	h := testAPI(t, &tokens{})
	for _, path := range []string{"/v1/ratelimit/check", "/v1/ratelimit/status"} {
		for _, c := range badChecks {
			a := ask(h, "POST", path, c.body)
			if !assert.Equal(t, 400, a.status, "%.200s", c.body) {
				continue
			}
			p := a.problem(t)
			require.NotEmpty(t, p.Errors, "%.200s", c.body)
			assert.Equal(t, c.field, p.Errors[0].Field, "%.200s: %.300s", c.body, a.body)
			assert.NotEmpty(t, p.Errors[0].Detail)
			assert.Less(t, len(a.body), 4096, "an answer to garbage is short")
		}
	}
	assert.Equal(t, 0, keysHeld(t, h), "bad input has spent something")
}

func TestSeveralMistakesAreAllNamed(t *testing.T) {
	h := testAPI(t, &tokens{})
	p := ask(h, "POST", "/v1/ratelimit/check", `{"limit":0,"period":7,"nonsense":1}`).problem(t)
	var named []string
	for _, e := range p.Errors {
		named = append(named, e.Field)
	}
	assert.Equal(t, []string{"limit", "period", "nonsense", "key"}, named)
}

func TestUnknownPathsAndMethodsAreProblems(t *testing.T) {
	h := testAPI(t, &tokens{})
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/nowhere", 404, ""},
		{"GET", "/v1", 404, ""},
		{"GET", "/v1/ratelimit/check", 405, "DELETE, POST"},
		{"PUT", "/v1/ratelimit", 405, "DELETE, GET, HEAD"},
		{"POST", "/healthz", 405, "GET, HEAD"},
	} {
		a := ask(h, c.method, c.path, "")
		assert.Equal(t, c.status, a.status, c.path)
		a.problem(t)
		assert.Equal(t, c.allow, a.header.Get("Allow"), c.path)
	}
}

func TestTokens(t *testing.T) {
	const user, admin = "user-token-0123456789", "admin-token-0123456789"
	both := &tokens{users: hashTokens([]string{"another-token-9876543210", user}), admins: hashTokens([]string{admin})}
	basic := func(password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte("anybody:"+password))
	}
	for _, c := range []struct {
		name   string
		tokens *tokens
		header string
		need   access
		want   int
	}{
		{"nothing configured", &tokens{}, "", forAdmins, 0},
		{"none", both, "", forUsers, 401},
		{"another scheme", both, "Basic dXNlcjpwYXNz", forUsers, 401},
		{"no token", both, "Bearer ", forUsers, 401},
		{"a wrong one", both, "Bearer wrong", forUsers, 403},
		{"a longer one", both, "Bearer " + user + "x", forUsers, 403},
		{"a user's", both, "Bearer " + user, forUsers, 0},
		{"any case of the scheme", both, "bearer " + user, forUsers, 0},
		{"an admin's", both, "Bearer " + admin, forUsers, 0},
		{"a user's to administer", both, "Bearer " + user, forAdmins, 403},
		{"an admin's to administer", both, "Bearer " + admin, forAdmins, 0},
		{"users only, to administer", &tokens{users: both.users}, "Bearer " + user, forAdmins, 403},
		{"admins only, no token", &tokens{admins: both.admins}, "", forUsers, 401},
		{"a probe", both, "", forAnyone, 0},
		{"a browser without a password", both, "", forReaders, 401},
		{"a browser", both, basic(user), forReaders, 0},
		{"an admin's browser", both, basic(admin), forReaders, 0},
		{"a browser with a wrong password, to be asked again", both, basic("wrong"), forReaders, 401},
		{"a browser with an empty password", both, basic(""), forReaders, 401},
		{"a program that reads", both, "Bearer " + user, forReaders, 0},
		{"a wrong one that reads", both, "Bearer wrong", forReaders, 403},
		{"a browser that uses", both, basic(user), forUsers, 401},
		{"a browser that administers", both, basic(admin), forAdmins, 401},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		if c.header != "" {
			r.Header.Set("Authorization", c.header)
		}
		status, detail := c.tokens.refuses(c.need, r)
		assert.Equal(t, c.want, status, c.name)
		assert.Equal(t, c.want != 0, detail != "", c.name)
	}

	h := testAPI(t, both)
	a := ask(h, "POST", "/v1/ratelimit/check", validCheck)
	assert.Equal(t, 401, a.status)
	assert.Contains(t, a.header.Get("WWW-Authenticate"), "Bearer")
	a.problem(t)
	assert.Equal(t, 403, ask(h, "POST", "/v1/ratelimit/check", validCheck, "Authorization", "Bearer x").status)
	assert.Equal(t, 200, ask(h, "POST", "/v1/ratelimit/check", validCheck, "Authorization", "Bearer "+user).status)
	assert.Equal(t, 401, ask(h, "GET", "/nowhere", "").status, "which routes there are is not told either")
	assert.Equal(t, 404, ask(h, "GET", "/nowhere", "", "Authorization", "Bearer "+user).status)
	assert.Equal(t, 200, ask(h, "GET", "/healthz", "").status)
	assert.Equal(t, 503, ask(h, "GET", "/readyz", "").status, "no node has started")

	h.open(testPage())
	for _, path := range []string{"/", "/page.css", "/page.js", "/icon.svg"} {
		a := ask(h, "GET", path, "")
		assert.Equal(t, 401, a.status, path)
		assert.Equal(t, []string{`Basic realm="peerlimit", charset="UTF-8"`, `Bearer realm="peerlimit"`}, a.header["Www-Authenticate"])
		a.problem(t)
		assert.Equal(t, 200, ask(h, "GET", path, "", "Authorization", basic(user)).status, path)
		assert.Equal(t, 405, ask(h, "POST", path, "", "Authorization", "Bearer "+user).status, path)
	}
	assert.Equal(t, 401, ask(h, "GET", "/v1/cluster/live", "").status)
	assert.Equal(t, 401, ask(h, "POST", "/v1/cluster/breakers/m2/reset", "", "Authorization", basic(admin)).status)
}

func TestOnlyProbesAnswerWhileStarting(t *testing.T) {
	h := newHandler(&tokens{}, testProbes(new(probes)))
	assert.Equal(t, 200, ask(h, "GET", "/healthz", "").status)
	a := ask(h, "GET", "/readyz", "")
	assert.Equal(t, 503, a.status)
	assert.Contains(t, a.problem(t).Detail, "starting")
	a = ask(h, "POST", "/v1/ratelimit/check", validCheck)
	assert.Equal(t, 503, a.status)
	assert.Equal(t, "1", a.header.Get("Retry-After"))
	a.problem(t)
}

func TestLeavingSaysSoAndClosesConnections(t *testing.T) {
	p := new(probes)
	h := newHandler(&tokens{}, testProbes(p))
	p.leaving()
	h.closing.Store(true)
	a := ask(h, "GET", "/readyz", "")
	assert.Equal(t, 503, a.status)
	assert.Contains(t, a.problem(t).Detail, "draining")
	assert.Equal(t, "close", a.header.Get("Connection"))
}

// FuzzCheckBody: whatever is sent, the answer is a decision or says what is
// wrong, and a refusal has spent nothing.
func FuzzCheckBody(f *testing.F) {
	f.Add(validCheck)
	for _, c := range badChecks {
		if len(c.body) < 1000 {
			f.Add(c.body)
		}
	}
	limits, err := ratelimit.New(ratelimit.Config{MaxKeys: 1000})
	require.NoError(f, err)
	defer limits.Close()
	h := newHandler(&tokens{}, nil)
	h.open((&ratelimitAPI{limits: limits, mode: ratelimit.FailOpen, log: slog.New(slog.DiscardHandler)}).routes())
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "/v1/ratelimit/check", strings.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case 200, 429:
			var any map[string]any
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &any), w.Body)
		case 400:
			var p problem
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p), w.Body)
			require.NotEmpty(t, p.Errors, body)
			require.NotEmpty(t, p.Errors[0].Field, body)
		default:
			t.Fatalf("%d for %q: %s", w.Code, body, w.Body)
		}
	})
}

// BenchmarkCheckRoute is the route without the network.
func BenchmarkCheckRoute(b *testing.B) {
	limits, err := ratelimit.New(ratelimit.Config{})
	require.NoError(b, err)
	defer limits.Close()
	h := newHandler(&tokens{}, nil)
	h.open((&ratelimitAPI{limits: limits, mode: ratelimit.FailOpen, log: slog.New(slog.DiscardHandler)}).routes())
	body := []byte(`{"key":"account:000123","limit":1000000000,"period":"60s"}`)
	r := httptest.NewRequest("POST", "/v1/ratelimit/check", nil)
	w := &discard{header: http.Header{}}
	reader := bytes.NewReader(body)
	r.Body = io.NopCloser(reader)
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		h.ServeHTTP(w, r)
		if w.status != 200 {
			b.Fatal(w.status)
		}
	}
}

type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }
