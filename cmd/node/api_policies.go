package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cmd/node/internal/strictjson"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// policiesAPI is the part of the HTTP API that is about stored policies, which
// come before what checks bring under the same name, and their overrides for
// single keys.
type policiesAPI struct {
	limits *ratelimit.Limiter
	log    *slog.Logger
}

func (a *policiesAPI) routes() []route {
	return []route{
		{"GET /v1/policies", forUsers, a.list},
		{"GET /v1/policies/{name}", forUsers, a.show},
		{"PUT /v1/policies/{name}", forAdmins, a.put},
		{"DELETE /v1/policies/{name}", forAdmins, a.delete},
		{"PUT /v1/policies/{name}/overrides/{key...}", forAdmins, a.putOverride},
		{"DELETE /v1/policies/{name}/overrides/{key...}", forAdmins, a.deleteOverride},
	}
}

// list answers what is stored, as this member knows it.
func (a *policiesAPI) list(w http.ResponseWriter, _ *http.Request) {
	all := a.limits.StoredPolicies()
	if all == nil {
		all = []ratelimit.StoredPolicy{}
	}
	writeJSONValue(w, http.StatusOK, struct {
		Policies []ratelimit.StoredPolicy `json:"policies"`
	}{all})
}

func (a *policiesAPI) show(w http.ResponseWriter, r *http.Request) {
	policy, found := a.limits.StoredPolicy(r.PathValue("name"))
	if !found {
		writeProblem(w, http.StatusNotFound, "no policy of this name is stored")
		return
	}
	writeJSONValue(w, http.StatusOK, policy)
}

// put stores a policy, with its overrides, in place of what there was.
func (a *policiesAPI) put(w http.ResponseWriter, r *http.Request) {
	buffer := getBodyBuffer()
	defer buffer.release()
	_, err := buffer.in.ReadFrom(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		refuseInput(w, strictjson.FieldError{Field: "body", Detail: "ended before its length"})
		return
	case buffer.in.Len() > maxBody:
		refuseInput(w, strictjson.FieldError{Field: "body", Detail: "must be at most 1048576 bytes"})
		return
	case !json.Valid(buffer.in.Bytes()): // the package reads YAML too, here it is JSON only
		refuseInput(w, strictjson.FieldError{Field: "body", Detail: "must be JSON"})
		return
	}
	policy, err := ratelimit.ParsePolicy(r.PathValue("name"), buffer.in.Bytes())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.answer(w, r, func(ctx context.Context) (cluster.Receipt, error) { return a.limits.PutPolicy(ctx, policy) })
}

func (a *policiesAPI) delete(w http.ResponseWriter, r *http.Request) {
	a.answer(w, r, func(ctx context.Context) (cluster.Receipt, error) {
		return a.limits.DeletePolicy(ctx, r.PathValue("name"))
	})
}

// putOverride changes what one key may use of a policy.
func (a *policiesAPI) putOverride(w http.ResponseWriter, r *http.Request) {
	buffer := getBodyBuffer()
	defer buffer.release()
	override := ratelimit.Override{Key: r.PathValue("key")}
	if !buffer.read(w, r, func(in *strictjson.Reader) { readOverride(in, &override) }) {
		return
	}
	a.answer(w, r, func(ctx context.Context) (cluster.Receipt, error) {
		return a.limits.SetOverride(ctx, r.PathValue("name"), override)
	})
}

func readOverride(r *strictjson.Reader, o *ratelimit.Override) {
	for name := range r.Object() {
		switch string(name) {
		case "times":
			o.Times = r.Int(1, ratelimit.MaxLimit)
		case "limit":
			o.Limit = r.Int(1, ratelimit.MaxLimit)
		case "burst":
			o.Burst = r.Int(1, ratelimit.MaxLimit)
		case "unlimited":
			o.Unlimited = r.Bool()
		default:
			r.Unknown()
		}
	}
}

func (a *policiesAPI) deleteOverride(w http.ResponseWriter, r *http.Request) {
	a.answer(w, r, func(ctx context.Context) (cluster.Receipt, error) {
		return a.limits.DeleteOverride(ctx, r.PathValue("name"), r.PathValue("key"))
	})
}

// answer makes a change and tells how far it came.
func (a *policiesAPI) answer(w http.ResponseWriter, r *http.Request, change func(context.Context) (cluster.Receipt, error)) {
	receipt, err := change(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	writeJSONValue(w, http.StatusOK, receiptAnswer{receiptView{
		receipt.Reached, receipt.Members, roundUp(receipt.Took, time.Millisecond), receipt.Unreached,
	}})
}

func (a *policiesAPI) fail(w http.ResponseWriter, r *http.Request, err error) {
	var field *ratelimit.FieldError
	var line *ratelimit.FileError
	switch {
	case errors.Is(err, ratelimit.ErrNoPolicy):
		writeProblem(w, http.StatusNotFound, "nothing is stored under this name")
	case errors.As(err, &line) && !errors.As(err, &field):
		refuseInput(w, strictjson.FieldError{Field: "body", Detail: "can't be read as a policy"})
	default:
		(&ratelimitAPI{log: a.log}).fail(w, r, err)
	}
}
