package main

import (
	"errors"
	"net/http"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/admin"
)

// probeRoutes answer while the member still starts, too.
func probeRoutes(view *admin.Handler) []route {
	return []route{
		{"GET /healthz", forAnyone, view.ServeHTTP},
		{"GET /readyz", forAnyone, view.ServeHTTP},
	}
}

// clusterAPI is the part of the HTTP API that is about the cluster itself.
type clusterAPI struct {
	node *cluster.Node
	view *admin.Handler
}

func (a *clusterAPI) routes() []route {
	return []route{
		{"GET /v1/cluster", forReaders, a.view.ServeHTTP},
		{"GET /v1/cluster/live", forReaders, a.view.ServeHTTP},
		{"GET /{$}", forReaders, a.view.ServeHTTP},
		{"GET /page.css", forReaders, a.view.ServeHTTP},
		{"GET /page.js", forReaders, a.view.ServeHTTP},
		{"GET /icon.svg", forReaders, a.view.ServeHTTP},
		{"POST /v1/cluster/breakers/{name}/reset", forAdmins, a.resetBreaker},
	}
}

// resetBreaker closes a peer's breaker at once.
func (a *clusterAPI) resetBreaker(w http.ResponseWriter, r *http.Request) {
	err := a.node.ResetBreaker(r.PathValue("name"))
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, cluster.ErrUnknownMember):
		writeProblem(w, http.StatusNotFound, "no peer of that name")
	default:
		writeProblem(w, http.StatusServiceUnavailable, "this member is stopping")
	}
}
