package admin

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// probe is short, for who reads it is a program.
type probe struct {
	Status string `json:"status"`
	// Short: fewer members are in reach than the member's MinMembers.
	Short bool `json:"short,omitempty"`
}

// healthz says that the process runs. Whether it is of use is for readyz: to
// restart a member that waits for others helps nobody.
func (h *Handler) healthz(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, "application/json", probe{Status: "alive"})
}

// readyz says whether this process should get requests. Being short of members
// is no reason against it: the others would be short of one more.
func (h *Handler) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := h.ready(); err != nil {
		unavailable(w, err)
		return
	}
	p := probe{Status: "ready"}
	if m := h.member.Load(); m != nil {
		p.Short = m.node.Status().Short
	}
	writeJSON(w, http.StatusOK, "application/json", p)
}

// cluster answers this member's view of its cluster.
func (h *Handler) cluster(w http.ResponseWriter, _ *http.Request) {
	m := h.member.Load()
	if m == nil {
		unavailable(w, errNotStarted)
		return
	}
	writeJSON(w, http.StatusOK, "application/json", m.node.Status())
}

// liveView is what the page shows.
type liveView struct {
	TimeMS  int64          `json:"time_ms"` // by this member's clock, since 1970
	Status  cluster.Status `json:"status"`  // as /v1/cluster has it
	Gone    []goneView     `json:"gone"`
	Overall *overall       `json:"overall"`
}

// live answers all that the page shows.
func (h *Handler) live(w http.ResponseWriter, r *http.Request) {
	m := h.member.Load()
	if m == nil {
		unavailable(w, errNotStarted)
		return
	}
	all, err := m.overall(r.Context())
	if err != nil {
		return // the caller has gone
	}
	v := liveView{TimeMS: time.Now().UnixMilli(), Status: m.node.Status(), Overall: all}
	v.Gone = m.gone.without(v.Status.Members)
	writeJSON(w, http.StatusOK, "application/json", v)
}

// problem is an error's answer by RFC 9457.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

func unavailable(w http.ResponseWriter, err error) {
	writeJSON(w, http.StatusServiceUnavailable, "application/problem+json", problem{
		Type: "about:blank", Title: http.StatusText(http.StatusServiceUnavailable),
		Status: http.StatusServiceUnavailable, Detail: err.Error(),
	})
}

func writeJSON(w http.ResponseWriter, status int, kind string, value any) {
	body, err := json.Marshal(value)
	if err != nil { // plain structs always can be marshalled
		panic(err)
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
