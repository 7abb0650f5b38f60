package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cmd/node/internal/strictjson"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// ratelimitAPI is the part of the HTTP API that is about limits.
type ratelimitAPI struct {
	limits *ratelimit.Limiter
	mode   ratelimit.FailureMode
	log    *slog.Logger
}

func (a *ratelimitAPI) routes() []route {
	return []route{
		{"POST /v1/ratelimit/check", forUsers, a.check},
		{"POST /v1/ratelimit/status", forUsers, a.status},
		{"GET /v1/ratelimit", forUsers, a.size},
		{"DELETE /v1/ratelimit", forUsers, a.resetAll},
		{"DELETE /v1/ratelimit/{key...}", forUsers, a.reset},
	}
}

// check decides, and spends where it allows.
func (a *ratelimitAPI) check(w http.ResponseWriter, r *http.Request) {
	buffer := getBodyBuffer()
	defer buffer.release()
	var asked checkBody
	if !buffer.read(w, r, asked.read) {
		return
	}
	switch {
	case asked.checks == nil:
		one := &asked.one
		d, err := a.limits.AllowN(r.Context(), one.Policy, one.Key, one.Cost)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		buffer.out = append(appendDecision(buffer.out, &d), '\n')
		a.answer(w, buffer.out, d.Allowed, &one.Policy, &d)
	case asked.independent:
		a.each(w, r, buffer, asked.checks, func(ctx context.Context, c *ratelimit.Check) (ratelimit.Decision, error) {
			return a.limits.AllowN(ctx, c.Policy, c.Key, c.Cost)
		})
	default:
		all, err := a.limits.AllowAll(r.Context(), asked.checks...)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		a.answerAll(w, buffer, all, asked.checks)
	}
}

// status answers what check would, and spends nothing.
func (a *ratelimitAPI) status(w http.ResponseWriter, r *http.Request) {
	buffer := getBodyBuffer()
	defer buffer.release()
	var asked checkBody
	if !buffer.read(w, r, asked.read) {
		return
	}
	look := func(ctx context.Context, c *ratelimit.Check) (ratelimit.Decision, error) {
		return a.limits.StatusN(ctx, c.Policy, c.Key, c.Cost)
	}
	if asked.checks != nil {
		a.each(w, r, buffer, asked.checks, look)
		return
	}
	d, err := look(r.Context(), &asked.one)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	buffer.out = append(appendDecision(buffer.out, &d), '\n')
	a.answer(w, buffer.out, d.Allowed, &asked.one.Policy, &d)
}

// each decides every check by itself, all at the same time, and answers 200
// whatever the decisions are.
func (a *ratelimitAPI) each(w http.ResponseWriter, r *http.Request, buffer *bodyBuffer, checks []ratelimit.Check,
	decide func(context.Context, *ratelimit.Check) (ratelimit.Decision, error)) {
	stored := func(policy string) bool {
		_, found := a.limits.StoredPolicy(policy)
		return found
	}
	if fields := refuseChecks(checks, stored); fields != nil { // before any of them has spent
		refuseInput(w, fields...)
		return
	}
	all := ratelimit.All{Allowed: true, Decisions: make([]ratelimit.Decision, len(checks))}
	errs := make([]error, len(checks))
	var wait sync.WaitGroup
	for i := range checks {
		wait.Go(func() { all.Decisions[i], errs[i] = decide(r.Context(), &checks[i]) })
	}
	wait.Wait()
	for i := range checks {
		if errs[i] != nil {
			a.fail(w, r, inCheck(i, errs[i]))
			return
		}
		all.Allowed = all.Allowed && all.Decisions[i].Allowed
	}
	buffer.out = appendAll(buffer.out, &all)
	writeJSON(w, http.StatusOK, buffer.out)
}

// inCheck makes an error's field say which check it is of.
func inCheck(i int, err error) error {
	var field *ratelimit.FieldError
	if errors.As(err, &field) {
		return &ratelimit.FieldError{Field: "checks[" + strconv.Itoa(i) + "]." + field.Field, Detail: field.Detail}
	}
	return err
}

func (a *ratelimitAPI) answerAll(w http.ResponseWriter, buffer *bodyBuffer, all ratelimit.All, checks []ratelimit.Check) {
	buffer.out = appendAll(buffer.out, &all)
	if all.Allowed {
		writeJSON(w, http.StatusOK, buffer.out)
		return
	}
	header := w.Header()
	status := http.StatusTooManyRequests
	var denied quotaHeaders
	for i := range all.Decisions {
		if d := &all.Decisions[i]; !d.Allowed {
			policy := a.inForce(&checks[i].Policy)
			denied.add(policy, d)
			if a.nobodyDecided(policy, d) {
				status = http.StatusServiceUnavailable
			}
		}
	}
	denied.set(header)
	writeJSON(w, status, buffer.out)
}

// answer sends a decision, with the status that goes with it.
func (a *ratelimitAPI) answer(w http.ResponseWriter, body []byte, allowed bool, policy *ratelimit.Policy, d *ratelimit.Decision) {
	if allowed {
		writeJSON(w, http.StatusOK, body)
		return
	}
	policy = a.inForce(policy)
	var denied quotaHeaders
	denied.add(policy, d)
	denied.set(w.Header())
	status := http.StatusTooManyRequests
	if a.nobodyDecided(policy, d) {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, body)
}

// inForce is the policy that a check was judged by: what is stored under its
// name, where that has a limit.
func (a *ratelimitAPI) inForce(p *ratelimit.Policy) *ratelimit.Policy {
	if stored, found := a.limits.StoredPolicy(p.Name); found && stored.Policy.Limit != 0 {
		return &stored.Policy
	}
	return p
}

// nobodyDecided reports whether a call was denied though nobody found that it
// asks for too much: that is the service's fault, not the caller's.
func (a *ratelimitAPI) nobodyDecided(p *ratelimit.Policy, d *ratelimit.Decision) bool {
	return d.Degraded && !d.Allowed && cmp.Or(p.OnUnavailable, a.mode) != ratelimit.FailLocal
}

// size answers how many keys have something used, over the cluster and of these
// how many this member holds. Where a member can't be asked, the others' are
// answered and the answer says so.
func (a *ratelimitAPI) size(w http.ResponseWriter, r *http.Request) {
	n, err := a.limits.Size(r.Context())
	if errors.Is(err, ratelimit.ErrClosed) || r.Context().Err() != nil {
		a.fail(w, r, err)
		return
	}
	if err != nil {
		a.log.Debug("not all keys counted", "error", err)
	}
	writeJSONValue(w, http.StatusOK, keysView{Keys: n, Here: a.limits.Stats().Keys, Partial: err != nil})
}

// keysView is the answer of GET /v1/ratelimit.
type keysView struct {
	Keys int `json:"keys"` // over the cluster
	Here int `json:"here"` // held by the member that answers
	// Partial: a member did not answer, so keys are those of the others.
	Partial bool `json:"partial,omitempty"`
}

// reset forgets what was used of one policy for one key.
func (a *ratelimitAPI) reset(w http.ResponseWriter, r *http.Request) {
	query, fields := readQuery(r, "policy")
	if fields != nil {
		refuseInput(w, fields...)
		return
	}
	policy := ratelimit.Policy{Name: query.or("policy", defaultPolicy)}
	if err := a.limits.Reset(r.Context(), policy, r.PathValue("key")); err != nil {
		a.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// resetAll forgets what was used of one policy for all keys with a prefix.
func (a *ratelimitAPI) resetAll(w http.ResponseWriter, r *http.Request) {
	query, fields := readQuery(r, "policy", "prefix")
	if fields != nil {
		refuseInput(w, fields...)
		return
	}
	policy := ratelimit.Policy{Name: query.or("policy", defaultPolicy)}
	removed, err := a.limits.ResetAll(r.Context(), policy, query.or("prefix", ""))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	writeJSONValue(w, http.StatusOK, struct {
		Removed int `json:"removed"`
	}{removed})
}

// fail answers an error of the limiter.
func (a *ratelimitAPI) fail(w http.ResponseWriter, r *http.Request, err error) {
	var field *ratelimit.FieldError
	switch {
	case errors.As(err, &field):
		refuseInput(w, strictjson.FieldError{Field: field.Field, Detail: field.Detail})
	case r.Context().Err() != nil:
		// The caller is gone; the status is for a log in between.
		writeProblem(w, http.StatusServiceUnavailable, "the request was given up")
	case errors.Is(err, cluster.ErrUnavailable), errors.Is(err, cluster.ErrBusy):
		w.Header().Set("Retry-After", "1")
		writeProblem(w, http.StatusServiceUnavailable, "no member that may do this answered in time")
	case errors.Is(err, ratelimit.ErrClosed), errors.Is(err, cluster.ErrClosed):
		writeProblem(w, http.StatusServiceUnavailable, "this member is stopping")
	default:
		a.log.Error("http request failed", "method", r.Method, "route", r.Pattern, "error", err)
		writeProblem(w, http.StatusInternalServerError, "")
	}
}
