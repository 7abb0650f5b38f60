package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/cmd/node/internal/strictjson"
)

// authAPI is the part of the HTTP API that is about API keys.
type authAPI struct {
	keys *auth.Authenticator
	log  *slog.Logger
}

func (a *authAPI) routes() []route {
	return []route{
		{"POST /v1/auth/verify", forUsers, a.verify},
		{"GET /v1/auth/cache", forUsers, a.cacheStats},
		{"POST /v1/auth/cache/clear", forAdmins, a.clearCache},
		{"POST /v1/auth/keys", forAdmins, a.create},
		{"POST /v1/auth/keys/import", forAdmins, a.importKey},
		{"GET /v1/auth/keys", forAdmins, a.list},
		{"GET /v1/auth/keys/{id}", forAdmins, a.show},
		{"GET /v1/auth/keys/{id}/history", forAdmins, a.history},
		{"PATCH /v1/auth/keys/{id}", forAdmins, a.update},
		{"DELETE /v1/auth/keys/{id}", forAdmins, a.change((*auth.Authenticator).Delete)},
		{"POST /v1/auth/keys/{id}/disable", forAdmins, a.change((*auth.Authenticator).Disable)},
		{"POST /v1/auth/keys/{id}/enable", forAdmins, a.change((*auth.Authenticator).Enable)},
		{"POST /v1/auth/keys/{id}/rotate", forAdmins, a.rotate},
	}
}

// noKeys answers for a member that has no store of keys.
func noKeys() []route {
	refuse := func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, http.StatusServiceUnavailable, "this member keeps no API keys: set --key-store")
	}
	return []route{{"/v1/auth/", forUsers, refuse}}
}

// verdictView is the answer of POST /v1/auth/verify for a key that is valid.
type verdictView struct {
	Verdict   string         `json:"verdict"`
	ID        string         `json:"id"`
	Principal *principalView `json:"principal"`
	Cached    bool           `json:"cached"`
	Source    string         `json:"source"`
	Stale     bool           `json:"stale,omitempty"`
}

// verify judges a key that a client has presented to whoever asks.
func (a *authAPI) verify(w http.ResponseWriter, r *http.Request) {
	buffer := getBodyBuffer()
	defer buffer.release()
	var key string
	if !buffer.read(w, r, func(in *strictjson.Reader) { key = readKeyBody(in) }) {
		return
	}
	result, err := a.keys.Verify(r.Context(), key)
	w.Header().Set("Cache-Control", "no-store")
	if result.Verdict == auth.Valid {
		writeJSONValue(w, http.StatusOK, verdictView{Verdict: result.Verdict.String(), ID: result.Principal.ID,
			Principal: viewPrincipal(result.Principal), Cached: result.Cached, Source: result.Source.String(), Stale: result.Stale})
		return
	}
	p := problem{Verdict: result.Verdict.String()}
	switch result.Verdict {
	case auth.Malformed:
		p.Detail = "the API key is malformed"
	case auth.NotFound:
		p.Detail = "the API key is not known"
	case auth.Disabled:
		p.Detail = "the API key is disabled"
	case auth.Expired:
		p.Detail = "the API key has expired"
	default:
		if err != nil && r.Context().Err() == nil {
			a.log.Debug("key not verified", "error", err)
		}
		w.Header().Set("Retry-After", "1")
		p.Status, p.Detail = http.StatusServiceUnavailable, "API keys can't be verified now"
		p.write(w)
		return
	}
	// RFC 9110, section 15.5.2: a 401 names a scheme; this one is the client's.
	w.Header().Set("WWW-Authenticate", `Bearer realm="api", error="invalid_token"`)
	p.Status = http.StatusUnauthorized
	p.write(w)
}

func (a *authAPI) cacheStats(w http.ResponseWriter, _ *http.Request) {
	writeJSONValue(w, http.StatusOK, a.keys.CacheStats())
}

// clearCache makes every member forget what it has cached of a key.
func (a *authAPI) clearCache(w http.ResponseWriter, r *http.Request) {
	buffer := getBodyBuffer()
	defer buffer.release()
	var key string
	if !buffer.read(w, r, func(in *strictjson.Reader) { key = readKeyBody(in) }) {
		return
	}
	if _, err := a.keys.ClearCache(r.Context(), key); err != nil {
		a.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// issuedView is the answer that shows a key, the only one that ever does.
type issuedView struct {
	ID       string       `json:"id"`
	Key      string       `json:"key"`
	Prefix   string       `json:"prefix"`
	Project  string       `json:"project"`
	Expires  *time.Time   `json:"expires_at,omitempty"`
	Replaces string       `json:"replaces,omitempty"`
	Receipt  *receiptView `json:"receipt,omitempty"`
	// Announced is false where the old key may still be accepted by members
	// that have it cached, for up to a second.
	Announced *bool `json:"announced,omitempty"`
}

func viewIssued(i *auth.Issued) issuedView {
	return issuedView{ID: i.Key.ID, Key: i.Secret.Reveal(), Prefix: i.Key.Display, Project: i.Key.Project,
		Expires: instant(i.Key.ExpiresAt), Replaces: i.Key.Replaces}
}

func (a *authAPI) create(w http.ResponseWriter, r *http.Request) {
	buffer := getBodyBuffer()
	defer buffer.release()
	var body specBody
	if !buffer.read(w, r, body.readCreate) {
		return
	}
	issued, err := a.keys.Create(by(r), body.spec(time.Now()))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSONValue(w, http.StatusCreated, viewIssued(&issued))
}

// importKey takes in a key that was made elsewhere.
func (a *authAPI) importKey(w http.ResponseWriter, r *http.Request) {
	buffer := getBodyBuffer()
	defer buffer.release()
	var body specBody
	if !buffer.read(w, r, body.readImport) {
		return
	}
	key, receipt, err := a.keys.Import(by(r), auth.Import{Spec: body.spec(time.Now()),
		Key: auth.NewSecret(body.key), Digest: body.digest, Display: or(body.prefix, "")})
	if err != nil {
		a.fail(w, r, err)
		return
	}
	view := viewKey(&key)
	view.Receipt = viewReceipt(&receipt)
	writeJSONValue(w, http.StatusCreated, view)
}

// pageView is the answer of GET /v1/auth/keys; next is the next page's after.
type pageView struct {
	Keys []keyView `json:"keys"`
	Next string    `json:"next,omitempty"`
}

func (a *authAPI) list(w http.ResponseWriter, r *http.Request) {
	query, fields := readQuery(r, "project", "after", "limit")
	limit, bad := query.integer("limit", 0)
	if fields = append(fields, bad...); fields != nil {
		refuseInput(w, fields...)
		return
	}
	page, err := a.keys.List(r.Context(), auth.Query{
		Project: query.or("project", ""), After: query.or("after", ""), Limit: limit,
	})
	if err != nil {
		a.fail(w, r, err)
		return
	}
	view := pageView{Keys: make([]keyView, len(page.Keys)), Next: page.Next}
	for i := range page.Keys {
		view.Keys[i] = viewKey(&page.Keys[i])
	}
	writeJSONValue(w, http.StatusOK, view)
}

func (a *authAPI) show(w http.ResponseWriter, r *http.Request) {
	key, err := a.keys.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	writeJSONValue(w, http.StatusOK, viewKey(&key))
}

// historyLimit is how many records an answer has at most.
const historyLimit = 100

func (a *authAPI) history(w http.ResponseWriter, r *http.Request) {
	records, err := a.keys.History(r.Context(), r.PathValue("id"), historyLimit)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	view := struct {
		Records []recordView `json:"records"`
	}{make([]recordView, len(records))}
	for i := range records {
		view.Records[i] = recordView{records[i].At, records[i].Action, records[i].Actor, records[i].Detail}
	}
	writeJSONValue(w, http.StatusOK, view)
}

func (a *authAPI) update(w http.ResponseWriter, r *http.Request) {
	buffer := getBodyBuffer()
	defer buffer.release()
	var body specBody
	if !buffer.read(w, r, body.readPatch) {
		return
	}
	key, receipt, err := a.keys.Update(by(r), r.PathValue("id"), body.patch(time.Now()))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	view := viewKey(&key)
	view.Receipt = viewReceipt(&receipt)
	writeJSONValue(w, http.StatusOK, view)
}

// change is the route of a change that takes nothing but the key's ID. It takes
// no body; an empty object is understood.
func (a *authAPI) change(f func(*auth.Authenticator, context.Context, string) (auth.Receipt, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		receipt, err := f(a.keys, by(r), r.PathValue("id"))
		if err != nil {
			a.fail(w, r, err)
			return
		}
		writeJSONValue(w, http.StatusOK, receiptAnswer{*viewReceipt(&receipt)})
	}
}

// rotate replaces a key by a new one.
func (a *authAPI) rotate(w http.ResponseWriter, r *http.Request) {
	buffer := getBodyBuffer()
	defer buffer.release()
	var grace time.Duration
	if r.ContentLength != 0 && !buffer.read(w, r, func(in *strictjson.Reader) {
		for name := range in.Object() {
			if string(name) == "grace" {
				grace = in.Duration(0, auth.MaxGrace)
			} else {
				in.Unknown()
			}
		}
	}) {
		return
	}
	rotated, err := a.keys.Rotate(by(r), r.PathValue("id"), grace)
	if rotated.Key.ID == "" {
		a.fail(w, r, err)
		return
	}
	// It is stored, so the new key has to be shown whatever the error: it is
	// kept nowhere else.
	view := viewIssued(&rotated.Issued)
	view.Receipt = viewReceipt(&rotated.Receipt)
	if err != nil {
		a.log.Warn("key rotated, but not announced", "key", rotated.Old.ID, "error", err)
		view.Announced = new(bool)
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSONValue(w, http.StatusOK, view)
}

// by says in the audit trail where a change came from.
func by(r *http.Request) context.Context {
	return auth.WithActor(r.Context(), "http from "+auth.RemoteClient(r))
}

// fail answers an error of the authenticator.
func (a *authAPI) fail(w http.ResponseWriter, r *http.Request, err error) {
	var bad *auth.InvalidError
	switch {
	case errors.As(err, &bad):
		fields := make([]strictjson.FieldError, len(bad.Fields))
		for i, f := range bad.Fields {
			fields[i] = strictjson.FieldError(f)
		}
		refuseInput(w, fields...)
	case errors.Is(err, auth.ErrNotFound):
		writeProblem(w, http.StatusNotFound, "no key with this ID")
	case errors.Is(err, auth.ErrExists):
		writeProblem(w, http.StatusConflict, "this key is known already")
	case errors.Is(err, auth.ErrNotAnnounced):
		a.log.Warn("key changed, but not announced", "route", r.Pattern, "error", err)
		w.Header().Set("Retry-After", "1")
		writeProblem(w, http.StatusServiceUnavailable,
			"the change is stored, but could not be announced: members that have the key cached may go by its old state for up to a second")
	case r.Context().Err() != nil:
		writeProblem(w, http.StatusServiceUnavailable, "the request was given up")
	case errors.Is(err, auth.ErrClosed):
		writeProblem(w, http.StatusServiceUnavailable, "this member is stopping")
	default:
		a.log.Error("key store failed", "route", r.Pattern, "error", err)
		w.Header().Set("Retry-After", "1")
		writeProblem(w, http.StatusServiceUnavailable, "the key store could not do this")
	}
}

// integer returns a whole number of the query, or fallback where it was left out.
func (q query) integer(name string, fallback int) (int, []strictjson.FieldError) {
	text, given := q[name]
	if !given {
		return fallback, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, []strictjson.FieldError{{Field: name, Detail: "must be a whole number from 1"}}
	}
	return n, nil
}
