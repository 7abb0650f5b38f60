package main

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/peerlimit/peerlimit/ratelimit"
)

// appendDecision appends a decision as JSON. It is written out by hand because
// it is the answer to nearly every request.
func appendDecision(b []byte, d *ratelimit.Decision) []byte {
	b = append(b, `{"allowed":`...)
	b = strconv.AppendBool(b, d.Allowed)
	b = append(b, `,"limit":`...)
	b = strconv.AppendInt(b, d.Limit, 10)
	b = append(b, `,"remaining":`...)
	b = strconv.AppendInt(b, d.Remaining, 10)
	b = append(b, `,"retry_after_ms":`...)
	b = strconv.AppendInt(b, roundUp(d.RetryAfter, time.Millisecond), 10)
	b = append(b, `,"reset_after_ms":`...)
	b = strconv.AppendInt(b, roundUp(d.ResetAfter, time.Millisecond), 10)
	b = append(b, `,"policy":`...)
	b = appendString(b, d.Policy)
	b = append(b, `,"degraded":`...)
	b = strconv.AppendBool(b, d.Degraded)
	b = append(b, `,"reason":`...)
	b = appendString(b, d.Reason)
	return append(b, '}')
}

func appendAll(b []byte, all *ratelimit.All) []byte {
	b = append(b, `{"allowed":`...)
	b = strconv.AppendBool(b, all.Allowed)
	b = append(b, `,"decisions":[`...)
	for i := range all.Decisions {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendDecision(b, &all.Decisions[i])
	}
	return append(b, "]}\n"...)
}

// appendString appends a JSON string; names and reasons need no escaping.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // a string can always be marshalled
				panic(err)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// roundUp counts units in d: who waits as long as he was told must not come too
// early.
func roundUp(d, unit time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64((d-1)/unit) + 1
}

// quotaHeaders are the headers of a denial: RateLimit-Policy and RateLimit by
// draft-ietf-httpapi-ratelimit-headers-10 (lists of RFC 9651) and Retry-After
// by RFC 9110, section 10.2.3, in seconds.
type quotaHeaders struct {
	policies, state []byte
	retry           int64
}

// maxInteger is the largest integer of a structured field (RFC 9651, section
// 3.3.1); limits go beyond it.
const maxInteger = 999_999_999_999_999

// add adds a denial by the policy that was in force.
func (q *quotaHeaders) add(p *ratelimit.Policy, d *ratelimit.Decision) {
	if len(q.policies) > 0 {
		q.policies = append(q.policies, ", "...)
		q.state = append(q.state, ", "...)
	}
	q.policies = appendString(q.policies, d.Policy)
	q.policies = append(q.policies, ";q="...)
	q.policies = strconv.AppendInt(q.policies, min(d.Limit, maxInteger), 10)
	if window := windowSeconds(p); window > 0 {
		q.policies = append(q.policies, ";w="...)
		q.policies = strconv.AppendInt(q.policies, window, 10)
	}
	more := roundUp(d.NextAfter, time.Second)
	q.state = appendString(q.state, d.Policy)
	q.state = append(q.state, ";r="...)
	q.state = strconv.AppendInt(q.state, min(d.Remaining, maxInteger), 10)
	q.state = append(q.state, ";t="...)
	q.state = strconv.AppendInt(q.state, more, 10)
	q.retry = max(q.retry, roundUp(d.RetryAfter, time.Second), more)
}

// windowSeconds is the length of a policy's window, 0 where it differs from one
// to the next.
func windowSeconds(p *ratelimit.Policy) int64 {
	switch p.Align {
	case ratelimit.Unaligned:
		return roundUp(p.Period, time.Second)
	case ratelimit.Second:
		return 1
	case ratelimit.Minute:
		return 60
	case ratelimit.Hour:
		return 3600
	case ratelimit.Day:
		return 24 * 3600
	case ratelimit.Week:
		return 7 * 24 * 3600
	}
	return 0 // a month
}

func (q *quotaHeaders) set(h http.Header) {
	h.Set("RateLimit-Policy", string(q.policies))
	h.Set("RateLimit", string(q.state))
	h.Set("Retry-After", strconv.FormatInt(q.retry, 10))
}
