package main

import (
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// route is one line of the HTTP API. Each area of the API has a file of its own
// with a function that returns its routes; api.routes puts them together.
type route struct {
	pattern string // as http.ServeMux has it
	access  access
	handle  http.HandlerFunc
}

// handler is the member's HTTP API. Until open is called only the routes it was
// made with answer, so that probes can be told what is going on while the
// member still starts.
type handler struct {
	tokens   atomic.Pointer[tokens] // replaced when their files are read again
	probes   []route
	current  atomic.Pointer[routes]
	closing  atomic.Bool // the server is about to stop: clients shall go elsewhere
	refusals *prometheus.CounterVec
}

type routes struct {
	mux  *http.ServeMux
	open bool
}

func newHandler(tokens *tokens, probes []route) *handler {
	h := &handler{probes: probes, refusals: newRefusals()}
	h.tokens.Store(tokens)
	h.current.Store(h.build(nil))
	return h
}

// refused counts a refusal.
func (h *handler) refused(reason string) { h.refusals.WithLabelValues(reason).Inc() }

// open puts the API behind the handler.
func (h *handler) open(api []route) { h.current.Store(h.build(api)) }

func (h *handler) build(api []route) *routes {
	mux := http.NewServeMux()
	for _, r := range h.probes {
		mux.HandleFunc(r.pattern, h.guard(r))
	}
	for _, r := range api {
		mux.HandleFunc(r.pattern, h.guard(r))
	}
	return &routes{mux: mux, open: api != nil}
}

// guard asks for what the route needs before it runs.
func (h *handler) guard(r route) http.HandlerFunc {
	return func(w http.ResponseWriter, request *http.Request) {
		if status, detail := h.tokens.Load().refuses(r.access, request); status != 0 {
			if r.access == forReaders && status == http.StatusUnauthorized {
				w.Header().Add("WWW-Authenticate", `Basic realm="peerlimit", charset="UTF-8"`)
			}
			h.refuseCaller(w, status, detail)
			return
		}
		r.handle(w, request)
	}
}

func (h *handler) refuseCaller(w http.ResponseWriter, status int, detail string) {
	h.refused(refusedToken)
	if status == http.StatusUnauthorized {
		w.Header().Add("WWW-Authenticate", `Bearer realm="peerlimit"`)
	}
	writeProblem(w, status, detail)
}

// ServeHTTP answers every request in the API's own form, also those that no
// route takes; without a token nobody learns which routes there are.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A proxy that believes a Content-Length beside Transfer-Encoding takes what
	// follows for the next request. So nothing follows (RFC 9112, section 6.1:
	// a server must close the connection after such a request; net/http does
	// not say which of the chunked ones had a length too).
	if h.closing.Load() || len(r.TransferEncoding) > 0 {
		w.Header().Set("Connection", "close")
	}
	current := h.current.Load()
	refuse, pattern := current.mux.Handler(r)
	if pattern != "" {
		current.mux.ServeHTTP(w, r)
		return
	}
	if status, detail := h.tokens.Load().refuses(forUsers, r); status != 0 {
		h.refuseCaller(w, status, detail)
		return
	}
	if !current.open {
		w.Header().Set("Retry-After", "1")
		writeProblem(w, http.StatusServiceUnavailable, "this member is starting")
		return
	}
	verdict := statusOnly{header: http.Header{}}
	refuse.ServeHTTP(&verdict, r)
	if allow := verdict.header.Get("Allow"); allow != "" {
		w.Header().Set("Allow", allow)
		writeProblem(w, http.StatusMethodNotAllowed, r.Method+" is not for this path; allowed: "+allow)
		return
	}
	writeProblem(w, http.StatusNotFound, "no such path")
}

// statusOnly hears what ServeMux would have answered in plain text.
type statusOnly struct{ header http.Header }

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (s *statusOnly) WriteHeader(int)             {}
