package ratelimit

import (
	"errors"
	"net/http"
	"strings"
)

// Problem types of draft-ietf-httpapi-ratelimit-headers-10, section 5.
const (
	ProblemQuotaExceeded   = "https://iana.org/assignments/http-problem-types#quota-exceeded"
	ProblemReducedCapacity = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
)

// Header values that all problems share. They have no room to append to.
var (
	problemJSON = []string{"application/problem+json"}
	noSniff     = []string{"nosniff"}
)

func writeProblem(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = problemJSON
	h["X-Content-Type-Options"] = noSniff
	delete(h, "Content-Length")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}

const (
	quotaExceeded   = `{"type":"` + ProblemQuotaExceeded + `","title":"Request cannot be satisfied as assigned quota has been exceeded","status":429,"violated-policies":[`
	reducedCapacity = `{"type":"` + ProblemReducedCapacity + `","title":"Request cannot be satisfied due to temporary server capacity constraints","status":503,"violated-policies":[`
)

// WriteDenial answers a denied request as a [Middleware] does by default, with
// 429 and a problem document, or with 503 where nobody could decide.
func WriteDenial(w http.ResponseWriter, _ *http.Request, d Denial) {
	// Written by hand, because floods of requests are what denials are for. The
	// names of policies need no escapes.
	var buf [512]byte
	status, body := http.StatusTooManyRequests, append(buf[:0], quotaExceeded...)
	if d.Unavailable {
		status, body = http.StatusServiceUnavailable, append(buf[:0], reducedCapacity...)
	}
	first := true
	for i := range d.Decisions {
		if d.Decisions[i].Allowed {
			continue
		}
		if !first {
			body = append(body, ',')
		}
		first = false
		body = append(body, '"')
		body = append(body, d.Decisions[i].Policy...)
		body = append(body, '"')
	}
	writeProblem(w, status, append(body, "]}"...))
}

// ofRequest says whether the request is to blame for a field, "cost" or
// "checks[1].cost".
func ofRequest(field string) bool {
	if _, of, is := strings.Cut(field, "]."); is {
		field = of
	}
	return field == "key" || field == "cost"
}

// WriteError answers a request that could not be checked, as a [Middleware]
// does by default: 400 where it has no key, or one that can't be used, else 503.
// The error's text is not sent.
func WriteError(w http.ResponseWriter, _ *http.Request, err error) {
	var field *FieldError
	var key *keyError
	if errors.As(err, &key) || errors.As(err, &field) && ofRequest(field.Field) {
		writeProblem(w, http.StatusBadRequest, []byte(`{"title":"Bad Request","status":400,`+
			`"detail":"The request lacks what it is rate-limited by, or has it in a form that cannot be used."}`))
		return
	}
	writeProblem(w, http.StatusServiceUnavailable, []byte(`{"title":"Service Unavailable","status":503,`+
		`"detail":"The request could not be checked against its rate limits."}`))
}
