package auth

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Problem is a refusal as HTTP says it: application/problem+json (RFC 9457) and, where they belong, the headers
// WWW-Authenticate (RFC 6750, section 3) and Retry-After. It never repeats what the client sent.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Verdict, where there is one.
	Verdict string `json:"verdict,omitempty"`

	// Challenge and RetryAfter become headers.
	Challenge  string        `json:"-"`
	RetryAfter time.Duration `json:"-"`
}

// WriteTo sends the problem.
func (p Problem) WriteTo(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.Challenge != "" {
		h.Set("WWW-Authenticate", p.Challenge)
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	body, err := json.Marshal(p)
	if err != nil {
		body = []byte(`{}`) // strings and numbers: can't be
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}

func newProblem(status int, detail string) Problem {
	return Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

// retryUnavailable is after how long a client may try again when verdicts are Unavailable.
const retryUnavailable = time.Second

// problemOf turns what Verify returned into a refusal.
func problemOf(realm string, r Result, err error) Problem {
	if t, ok := errors.AsType[*ThrottledError](err); ok {
		p := newProblem(http.StatusTooManyRequests, "too many failed attempts from this client")
		p.RetryAfter = t.RetryAfter
		return p
	}
	var p Problem
	switch r.Verdict {
	case Malformed:
		p = newProblem(http.StatusUnauthorized, "the API key is malformed")
	case NotFound:
		p = newProblem(http.StatusUnauthorized, "the API key is not known")
	case Disabled:
		p = newProblem(http.StatusUnauthorized, "the API key is disabled")
	case Expired:
		p = newProblem(http.StatusUnauthorized, "the API key has expired")
	default:
		p = newProblem(http.StatusServiceUnavailable, "API keys can't be verified now")
		p.RetryAfter, p.Verdict = retryUnavailable, Unavailable.String()
		return p
	}
	p.Verdict = r.Verdict.String()
	p.Challenge = challenge(realm, "invalid_token", p.Detail, nil)
	return p
}

// challenge writes a WWW-Authenticate header. A request without a key gets no error code (RFC 6750, section 3.1).
func challenge(realm, code, description string, scopes []string) string {
	s := `Bearer realm="` + realm + `"`
	if code != "" {
		s += `, error="` + code + `", error_description="` + description + `"`
	}
	if len(scopes) > 0 {
		s += `, scope="` + strings.Join(scopes, " ") + `"`
	}
	return s
}
