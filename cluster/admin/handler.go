package admin

import (
	"context"
	"embed"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// Node is what the handler needs of a member; a [*cluster.Node] is one.
type Node interface {
	Self() cluster.Member
	Members() []cluster.Member
	Status() cluster.Status
	Ready() error
	Watch(func(cluster.Event)) (stop func())
	Handle(kind string, h func(ctx context.Context, from cluster.Member, payload []byte) ([]byte, error))
	Call(ctx context.Context, to cluster.Member, kind string, payload []byte) ([]byte, error)
}

// Config of a [Handler].
type Config struct {
	// Node is the member to show. nil: it has not started yet; until
	// [Handler.Started] only the probes and the page's own files are of use.
	Node Node
	// Traffic is the Observer of this process's limiters. nil: the page says
	// nothing of this member's decisions.
	Traffic *Traffic
	// Ready is what /readyz asks, for a program that has more to do than to
	// join before it serves. nil: the member's own Ready.
	Ready func() error
}

// Handler shows one member. There is one of it a member, for members ask one
// another through it. Its methods may be called concurrently; it has no
// goroutines of its own, and ends with its node.
type Handler struct {
	cfg    Config
	member atomic.Pointer[member] // nil: not started
	mux    *http.ServeMux
}

// member is a member that has started.
type member struct {
	node    Node
	traffic *Traffic
	gone    gone

	turn   chan struct{} // holds the one who gathers; guards what follows
	last   *overall      // nil, or what lastAt was told; not changed any more
	lastAt time.Time
}

// New returns a handler.
func New(cfg Config) *Handler {
	h := &Handler{cfg: cfg, mux: http.NewServeMux()}
	h.mux.HandleFunc("GET /healthz", h.healthz)
	h.mux.HandleFunc("GET /readyz", h.readyz)
	h.mux.HandleFunc("GET /v1/cluster", h.cluster)
	h.mux.HandleFunc("GET /v1/cluster/live", h.live)
	for pattern, file := range map[string]struct{ name, kind string }{
		"GET /{$}":      {"page/index.html", "text/html; charset=utf-8"},
		"GET /page.css": {"page/page.css", "text/css; charset=utf-8"},
		"GET /page.js":  {"page/page.js", "text/javascript; charset=utf-8"},
		"GET /icon.svg": {"page/icon.svg", "image/svg+xml"},
	} {
		body, err := files.ReadFile(file.name)
		if err != nil { // they are part of the program
			panic(err)
		}
		h.mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", file.kind)
			_, _ = w.Write(body)
		})
	}
	if cfg.Node != nil {
		h.Started(cfg.Node)
	}
	return h
}

//go:embed page/index.html page/page.css page/page.js page/icon.svg
var files embed.FS

// Started says which member to show, once, to a handler that was made before it.
func (h *Handler) Started(node Node) {
	m := &member{node: node, traffic: h.cfg.Traffic, turn: make(chan struct{}, 1)}
	node.Watch(m.gone.saw) // until the node ends
	m.handle()
	h.member.Store(m)
}

// policy is what a browser may do for the page: ask this handler for its files
// and figures, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// ServeHTTP answers GET and HEAD; any other method gets 405.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	h.mux.ServeHTTP(w, r)
}

// ready is nil, or why this process should get no requests.
func (h *Handler) ready() error {
	m := h.member.Load()
	switch {
	case h.cfg.Ready != nil:
		return h.cfg.Ready()
	case m == nil:
		return errNotStarted
	}
	return m.node.Ready()
}

var errNotStarted = errors.New("starting: this member has not joined yet")
