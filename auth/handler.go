package auth

import (
	"context"
	"net/http"
	"strings"
)

// HTTPConfig says how the middleware reads requests.
type HTTPConfig struct {
	// Extract finds the key; default: Authorization: Bearer and X-API-Key.
	Extract Extractor
	// Client names the client that pays for failures; default RemoteClient.
	Client func(*http.Request) string
	// Realm is named in WWW-Authenticate; default "api". Quotes, backslashes and control characters are dropped.
	Realm string
	// Optional lets requests without a key through, without a principal. One with a wrong key is refused still.
	Optional bool
}

func (c HTTPConfig) withDefaults() HTTPConfig {
	if c.Extract == nil {
		c.Extract = AnyOf(Bearer, Header("X-API-Key"))
	}
	if c.Client == nil {
		c.Client = RemoteClient
	}
	c.Realm = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, c.Realm)
	if c.Realm == "" {
		c.Realm = "api"
	}
	return c
}

// Handler verifies each request's key as Config.HTTP says and hands those that are Valid to next, with the principal
// in their context. Others are answered here: 400 with more than one key, 401 without a valid one, 429 by
// Config.FailureLimit, 503 while nobody can tell, all as problem+json.
func (a *Authenticator) Handler(next http.Handler) http.Handler { return a.handler(a.cfg.HTTP, next) }

// HandlerWith is Handler with another configuration for a part of the routes.
func (a *Authenticator) HandlerWith(cfg HTTPConfig, next http.Handler) http.Handler {
	return a.handler(cfg.withDefaults(), next)
}

func (a *Authenticator) handler(cfg HTTPConfig, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, err := cfg.Extract(r)
		switch {
		case err != nil:
			p := newProblem(http.StatusBadRequest, "the request has to carry exactly one API key")
			p.Challenge = challenge(cfg.Realm, "invalid_request", p.Detail, nil)
			p.WriteTo(w)
			return
		case key == "" && cfg.Optional:
			next.ServeHTTP(w, r)
			return
		case key == "":
			p := newProblem(http.StatusUnauthorized, "an API key is required")
			p.Challenge = challenge(cfg.Realm, "", "", nil)
			p.WriteTo(w)
			return
		}
		ctx := r.Context()
		if a.cfg.FailureLimit != nil {
			ctx = WithClient(ctx, cfg.Client(r))
		}
		result, err := a.Verify(ctx, key)
		if result.Verdict != Valid {
			problemOf(cfg.Realm, result, err).WriteTo(w)
			return
		}
		next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), result.Principal)))
	})
}

type principalKey struct{}

// NewContext returns a context that carries a principal; the middleware does it, and tests of handlers may.
func NewContext(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// FromContext returns the verified principal.
func FromContext(ctx context.Context) (*Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(*Principal)
	return p, ok && p != nil
}

// KeyID returns the ID of the request's verified key, to limit by; ErrNoPrincipal where there is none.
func KeyID(r *http.Request) (string, error) {
	p, ok := FromContext(r.Context())
	if !ok {
		return "", ErrNoPrincipal
	}
	return p.ID, nil
}

// Project returns the project of the request's verified key, to limit by; ErrNoPrincipal where there is none.
func Project(r *http.Request) (string, error) {
	p, ok := FromContext(r.Context())
	if !ok {
		return "", ErrNoPrincipal
	}
	return p.Project, nil
}

// RequireScope hands on requests whose principal has all of the scopes. Others get 403, and 401 where there is no
// principal at all. It belongs inside Handler.
func RequireScope(scopes ...string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p, ok := FromContext(r.Context())
			switch {
			case !ok:
				refusal := newProblem(http.StatusUnauthorized, "an API key is required")
				refusal.Challenge = challenge("api", "", "", scopes)
				refusal.WriteTo(w)
			case !p.Has(scopes...):
				refusal := newProblem(http.StatusForbidden, "the API key lacks a scope")
				refusal.Challenge = challenge("api", "insufficient_scope", refusal.Detail, scopes)
				refusal.WriteTo(w)
			default:
				next.ServeHTTP(w, r)
			}
		})
	}
}
