package ratelimit

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// Problem types of draft-ietf-httpapi-ratelimit-headers-10, section 5.
const (
	ProblemQuotaExceeded   = "https://iana.org/assignments/http-problem-types#quota-exceeded"
	ProblemReducedCapacity = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
)

// problem is a body of RFC 9457.
type problem struct {
	Type             string   `json:"type,omitempty"`
	Title            string   `json:"title"`
	Status           int      `json:"status"`
	Detail           string   `json:"detail,omitempty"`
	ViolatedPolicies []string `json:"violated-policies,omitempty"`
}

func (p problem) write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and integers only
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Del("Content-Length")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}

// WriteDenial answers a denied request as a [Middleware] does by default, with
// 429 and a problem document, or with 503 where nobody could decide.
func WriteDenial(w http.ResponseWriter, _ *http.Request, d Denial) {
	p := problem{
		Type:   ProblemQuotaExceeded,
		Title:  "Request cannot be satisfied as assigned quota has been exceeded",
		Status: http.StatusTooManyRequests,
	}
	if d.Unavailable {
		p.Type, p.Status = ProblemReducedCapacity, http.StatusServiceUnavailable
		p.Title = "Request cannot be satisfied due to temporary server capacity constraints"
	}
	for i := range d.Decisions {
		if !d.Decisions[i].Allowed {
			p.ViolatedPolicies = append(p.ViolatedPolicies, d.Decisions[i].Policy)
		}
	}
	p.write(w)
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
		problem{
			Title:  http.StatusText(http.StatusBadRequest),
			Status: http.StatusBadRequest,
			Detail: "The request lacks what it is rate-limited by, or has it in a form that cannot be used.",
		}.write(w)
		return
	}
	problem{
		Title:  http.StatusText(http.StatusServiceUnavailable),
		Status: http.StatusServiceUnavailable,
		Detail: "The request could not be checked against its rate limits.",
	}.write(w)
}
