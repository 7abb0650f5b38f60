package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/cluster"
)

func ask(h http.Handler, method, path string) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return string(b)
}

var paths = map[string]string{
	"/": "text/html; charset=utf-8", "/page.css": "text/css; charset=utf-8",
	"/page.js": "text/javascript; charset=utf-8", "/icon.svg": "image/svg+xml",
	"/healthz": "application/json", "/readyz": "application/json",
	"/v1/cluster": "application/json", "/v1/cluster/live": "application/json",
}

func TestEveryPathIsReadOnly(t *testing.T) {
	h := New(Config{Node: newFakeNode()})
	for path, kind := range paths {
		for _, method := range []string{"GET", "HEAD"} {
			r := ask(h, method, path)
			assert.Equal(t, 200, r.StatusCode, "%s %s", method, path)
			assert.Equal(t, kind, r.Header.Get("Content-Type"), "%s %s", method, path)
		}
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"} {
			r := ask(h, method, path)
			assert.Equal(t, 405, r.StatusCode, "%s %s", method, path)
			assert.Equal(t, "GET, HEAD", r.Header.Get("Allow"), "%s %s", method, path)
		}
	}
	for _, path := range []string{"/nowhere", "/page", "/page/", "/page/index.html", "/index.html", "/handler.go", "/v1/cluster/", "/v1"} {
		assert.Equal(t, 404, ask(h, "GET", path).StatusCode, path)
	}
}

func TestEveryAnswerGuardsTheBrowser(t *testing.T) {
	h := New(Config{Node: newFakeNode()})
	for path := range paths {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			header := ask(h, method, path).Header
			csp := header.Get("Content-Security-Policy")
			for _, directive := range []string{
				"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
				"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
			} {
				assert.Contains(t, strings.Split(csp, "; "), directive, "%s %s", method, path)
			}
			assert.NotContains(t, csp, "unsafe")
			assert.NotContains(t, csp, "*")
			assert.Equal(t, "nosniff", header.Get("X-Content-Type-Options"))
			assert.Equal(t, "no-referrer", header.Get("Referrer-Policy"))
			assert.Equal(t, "DENY", header.Get("X-Frame-Options"))
			assert.Equal(t, "no-store", header.Get("Cache-Control"))
		}
	}
	assert.NotEmpty(t, ask(h, "GET", "/nowhere").Header.Get("Content-Security-Policy"))
}

func TestProbes(t *testing.T) {
	node := newFakeNode()
	h := New(Config{Node: node})
	assert.Equal(t, `{"status":"alive"}`+"\n", text(t, ask(h, "GET", "/healthz")))
	assert.Equal(t, `{"status":"ready"}`+"\n", text(t, ask(h, "GET", "/readyz")))
	node.status.Short = true
	assert.Equal(t, `{"status":"ready","short":true}`+"\n", text(t, ask(h, "GET", "/readyz")))
	node.ready = errors.New("draining: this member is leaving")
	r := ask(h, "GET", "/readyz")
	assert.Equal(t, 503, r.StatusCode)
	assert.Equal(t, "application/problem+json", r.Header.Get("Content-Type"))
	assert.JSONEq(t, `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"draining: this member is leaving"}`, text(t, r))
	assert.Equal(t, 200, ask(h, "GET", "/healthz").StatusCode, "it lives all the same")

	var busy error
	h = New(Config{Node: newFakeNode(), Ready: func() error { return busy }})
	assert.Equal(t, 200, ask(h, "GET", "/readyz").StatusCode)
	busy = errors.New("warming up")
	r = ask(h, "GET", "/readyz")
	assert.Equal(t, 503, r.StatusCode)
	assert.Contains(t, text(t, r), "warming up")
}

func TestBeforeTheMemberHasStarted(t *testing.T) {
	h := New(Config{})
	assert.Equal(t, 200, ask(h, "GET", "/healthz").StatusCode)
	for _, path := range []string{"/readyz", "/v1/cluster", "/v1/cluster/live"} {
		r := ask(h, "GET", path)
		assert.Equal(t, 503, r.StatusCode, path)
		assert.Contains(t, text(t, r), "starting", path)
	}
	h.Started(newFakeNode())
	for path := range paths {
		assert.Equal(t, 200, ask(h, "GET", path).StatusCode, path)
	}
}

func TestClusterIsTheStatus(t *testing.T) {
	node := newFakeNode()
	var got cluster.Status
	require.NoError(t, json.Unmarshal([]byte(text(t, ask(New(Config{Node: node}), "GET", "/v1/cluster"))), &got))
	assert.Equal(t, node.status, got)
}

func TestItCanBeMountedAnywhere(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/ops/", http.StripPrefix("/ops", New(Config{Node: newFakeNode()})))
	for path := range paths {
		assert.Equal(t, 200, ask(mux, "GET", "/ops"+path).StatusCode, path)
	}
}

// A caller that has gone while others are asked is not answered.
func TestACallerMayGo(t *testing.T) {
	h := New(Config{Node: newFakeNode()})
	h.member.Load().turn <- struct{}{} // somebody else asks
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/v1/cluster/live", nil))
	assert.Empty(t, w.Body.String())
}
