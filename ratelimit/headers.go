package ratelimit

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
	"unsafe"

	"github.com/dunglas/httpsfv"
)

// Header fields of draft-ietf-httpapi-ratelimit-headers-10, in the form that
// [http.Header] keys have.
const (
	headerPolicy    = "Ratelimit-Policy"
	headerRateLimit = "Ratelimit"
	headerRetry     = "Retry-After"
)

// maxSFInteger is the largest integer of a structured field (RFC 9651, 3.3.1).
const maxSFInteger = 999_999_999_999_999

// appendPolicy appends a policy's item of RateLimit-Policy: its name with the
// quota q and, but for months and places, the window w in seconds. A token
// bucket's quota is its limit and its window the period.
func appendPolicy(b []byte, p *Policy) []byte {
	item := httpsfv.NewItem(p.Name)
	item.Params.Add("q", min(p.Limit, maxSFInteger))
	switch {
	case p.Algorithm == Concurrency:
		item.Params.Add("qu", "concurrent-requests")
	case p.Align == Unaligned:
		item.Params.Add("w", max(seconds(p.Period), 1))
	case p.Align != Month:
		item.Params.Add("w", int64(alignedSeconds[p.Align]))
	}
	s, err := httpsfv.Marshal(httpsfv.List{item})
	if err != nil {
		panic(fmt.Sprintf("ratelimit: policy %q: %v", p.Name, err)) // names are checked
	}
	return append(b, s...)
}

var alignedSeconds = [...]int{Second: 1, Minute: 60, Hour: 3600, Day: 24 * 3600, Week: 7 * 24 * 3600}

// appendLimit appends a decision's item of RateLimit: the policy's name with
// what remains, r, and the seconds until there is more, t. It writes what
// httpsfv would, without its allocations: a name needs no escapes, and r and t
// are integers in range.
func appendLimit(b []byte, d *Decision, withReset bool) []byte {
	b = append(b, '"')
	b = append(b, d.Policy...)
	b = append(b, `";r=`...)
	b = strconv.AppendInt(b, min(d.Remaining, maxSFInteger), 10)
	if withReset && d.NextAfter > 0 {
		b = append(b, ";t="...)
		b = strconv.AppendInt(b, seconds(d.NextAfter), 10)
	}
	return b
}

// limitText is the longest RateLimit that is kept with its list: two short
// items, or one of any.
const limitText = 48

// fieldOf returns b as the value of a header field: in one allocation if it is
// short, instead of one for the text and one for the list. The list has no room
// to append to.
func fieldOf(b []byte) []string {
	if len(b) > limitText {
		return []string{string(b)}
	}
	f := new(struct {
		list [1]string
		text [limitText]byte
	})
	n := copy(f.text[:], b)
	f.list[0] = unsafe.String(&f.text[0], n) // nobody else has f, so its text never changes
	return f.list[:]
}

// told says whether clients are told of a decision: not of one that nobody
// made, nor of policies that do not deny.
func (p *Policy) told(d *Decision) bool {
	return !p.Shadow && !p.Unlimited && !(d.Degraded && d.ResetAfter == 0)
}

// retrySeconds is the Retry-After of a denial: whole seconds, not before any of
// the denied policies would allow the request.
func retrySeconds(asked []asked) int64 {
	after := int64(1)
	for i := range asked {
		if d := &asked[i].decision; !d.Allowed {
			after = max(after, seconds(d.RetryAfter), seconds(d.NextAfter))
		}
	}
	return after
}

// setXRateLimit sets the X-RateLimit family as GitHub has it: of the policy
// with the least left, with the reset as seconds since 1970.
func setXRateLimit(h http.Header, asked []asked, now time.Time) {
	var tightest *Decision
	for i := range asked {
		a := &asked[i]
		if !a.policy.told(&a.decision) {
			continue
		}
		d := &a.decision
		if tightest == nil || tightest.Allowed && !d.Allowed ||
			tightest.Allowed == d.Allowed && mul(d.Remaining, max(tightest.Limit, 1)).less(mul(tightest.Remaining, max(d.Limit, 1))) {
			tightest = d
		}
	}
	if tightest == nil {
		return
	}
	h.Set("X-RateLimit-Limit", strconv.FormatInt(tightest.Limit, 10))
	h.Set("X-RateLimit-Remaining", strconv.FormatInt(tightest.Remaining, 10))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(now.Unix()+seconds(tightest.ResetAfter), 10))
}
