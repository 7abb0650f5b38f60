package main

import (
	"errors"
	"net/http"

	"github.com/peerlimit/peerlimit/cluster"
)

// clusterAPI is the part of the HTTP API that is about the cluster itself.
type clusterAPI struct{ node *cluster.Node }

func (a *clusterAPI) routes() []route {
	return []route{
		{"GET /v1/cluster", forUsers, a.cluster},
		{"POST /v1/cluster/breakers/{name}/reset", forAdmins, a.resetBreaker},
	}
}

// cluster answers this member's view of its cluster.
func (a *clusterAPI) cluster(w http.ResponseWriter, _ *http.Request) {
	writeJSONValue(w, http.StatusOK, a.node.Status())
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
