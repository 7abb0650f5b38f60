package ratelimit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"
)

// Rule ties a policy to the key that requests count under, and to what they
// cost.
type Rule struct {
	Policy Policy
	Key    KeyFunc
	// Cost of a request in permits; nil: 1. A request of cost 0 is allowed and
	// spends nothing.
	Cost func(*http.Request) int64
}

// By returns the rule that counts requests under key, at one permit each.
func By(policy Policy, key KeyFunc) Rule { return Rule{Policy: policy, Key: key} }

// Middleware limits the requests of an [http.Handler]. It is a plain value; its
// Wrap fits http.ServeMux, chi, and whatever chains func(http.Handler)
// http.Handler.
//
// A request goes ahead if all its rules allow it, and spends either under all of
// them or under none. Responses carry RateLimit-Policy and RateLimit of
// draft-ietf-httpapi-ratelimit-headers-10; a denial is 429 with Retry-After and
// a problem document, and 503 where FailClosed denies because nobody could
// decide. A place of a [Concurrency] policy is held until the handler returns.
type Middleware struct {
	Limiter *Limiter
	Rules   []Rule

	// Skip lets a request pass uncounted. nil: none.
	Skip func(*http.Request) bool
	// Denied answers a denied request; the headers are set already. nil:
	// [WriteDenial].
	Denied func(http.ResponseWriter, *http.Request, Denial)
	// Error answers a request that could not be checked: its key could not be
	// had, or its context ended. nil: [WriteError].
	Error func(http.ResponseWriter, *http.Request, error)
	// XRateLimit sends X-RateLimit-Limit, -Remaining and -Reset too, as GitHub
	// has them, of the policy with the least left.
	XRateLimit bool
	// Jitter adds up to as much to Retry-After, so that those who were denied
	// together do not come back together. 0: nothing.
	Jitter time.Duration
	// Trusted finds out where requests come from, for the cap on new keys; see
	// Config.NewKeysPerMinute. The zero value takes the other end of the
	// connection; behind proxies say which. Sources with a private or loopback
	// address are not capped.
	Trusted Trusted
}

// Denial is what Middleware.Denied is told.
type Denial struct {
	Decisions   []Decision    // of the rules that counted the request
	RetryAfter  time.Duration // as the header says it: whole seconds, with jitter
	Unavailable bool          // denied by FailClosed: nobody could decide
}

// Handler limits next by all rules, all or nothing; see [Middleware]. It panics
// if a policy is not valid.
func (l *Limiter) Handler(next http.Handler, rules ...Rule) http.Handler {
	return Middleware{Limiter: l, Rules: rules}.Wrap(next)
}

// Wrap returns next behind the middleware. It panics if a policy or Trusted is
// not valid, or a rule has no key.
func (m Middleware) Wrap(next http.Handler) http.Handler {
	if m.Limiter == nil {
		panic("ratelimit: Middleware.Limiter is nil")
	}
	h := &handler{Middleware: m, next: next, finder: newFinder(m.Trusted)}
	h.Rules = append([]Rule(nil), m.Rules...)
	for i, rule := range h.Rules {
		if err := rule.Policy.Validate(); err != nil {
			panic(fmt.Sprintf("rule %d: %v", i, err))
		}
		if rule.Key == nil {
			panic(fmt.Sprintf("ratelimit: rule %d: policy %s has no key", i, rule.Policy.Name))
		}
		h.concurrent = h.concurrent || rule.Policy.Algorithm == Concurrency
	}
	if h.Denied == nil {
		h.Denied = WriteDenial
	}
	if h.Error == nil {
		h.Error = WriteError
	}
	return h
}

type handler struct {
	Middleware
	next       http.Handler
	finder     *finder
	concurrent bool // some rule holds places

	// written are the last values of RateLimit-Policy: one for most handlers,
	// more where stored policies and overrides give some keys other limits. Each
	// has its place; see policyPlace.
	written [policyPlaces]atomic.Pointer[writtenPolicies]
}

const policyPlaces = 16 // a power of two

// policyPlace is where the RateLimit-Policy of these policies is kept.
func policyPlace(all []asked) uint64 {
	const odd = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio: spreads near values over the upper bits
	var h uint64
	for i := range all {
		p := &all[i].policy
		h = (h + uint64(p.Limit) + uint64(p.Period)<<1) * odd
	}
	return h >> 60 % policyPlaces
}

type writtenPolicies struct {
	policies []Policy
	value    []string
}

// asked is one rule's answer to a request.
type asked struct {
	policy   Policy // the one in force
	decision Decision
}

// keyError says that a request has no key to count it under.
type keyError struct {
	policy string
	err    error
}

func (e *keyError) Error() string {
	return fmt.Sprintf("ratelimit: key for policy %s: %v", e.policy, e.err)
}
func (e *keyError) Unwrap() error { return e.err }

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.Skip != nil && h.Skip(r) {
		h.next.ServeHTTP(w, r)
		return
	}
	if len(h.Rules) == 1 && !h.concurrent {
		h.serveOne(w, r)
		return
	}
	h.serveAll(w, r)
}

func (h *handler) serveOne(w http.ResponseWriter, r *http.Request) {
	rule := &h.Rules[0]
	key, cost, err := rule.ask(r)
	if err != nil {
		if errors.Is(err, ErrSkip) {
			h.next.ServeHTTP(w, r)
			return
		}
		h.Error(w, r, err)
		return
	}
	var one [1]asked
	a := &one[0]
	a.policy = rule.Policy
	from := source{finder: h.finder, req: r}
	if _, err = h.Limiter.decide(r.Context(), &a.policy, key, opTake, cost, &from, &a.decision); err != nil {
		h.Error(w, r, err)
		return
	}
	if a.decision.Allowed {
		h.setHeaders(w.Header(), one[:], true)
		h.next.ServeHTTP(w, r)
		return
	}
	h.deny(w, r, one[:])
}

// serveAll is for several rules, or places.
func (h *handler) serveAll(w http.ResponseWriter, r *http.Request) {
	checks := make([]Check, 0, len(h.Rules))
	source := h.source(r)
	for i := range h.Rules {
		rule := &h.Rules[i]
		key, cost, err := rule.ask(r)
		if errors.Is(err, ErrSkip) {
			continue
		}
		if err != nil {
			h.Error(w, r, err)
			return
		}
		checks = append(checks, Check{Policy: rule.Policy, Key: key, Cost: cost, Source: source})
	}
	admission, err := h.Limiter.Admit(r.Context(), checks...)
	if err != nil {
		h.Error(w, r, err)
		return
	}
	defer admission.Release(r.Context())
	all := make([]asked, len(admission.Decisions))
	for i := range all {
		all[i] = asked{admission.Policies[i], admission.Decisions[i]}
	}
	if !admission.Allowed {
		h.deny(w, r, all)
		return
	}
	h.setHeaders(w.Header(), all, true)
	h.next.ServeHTTP(w, r)
}

func (rule *Rule) ask(r *http.Request) (key string, cost int64, err error) {
	if key, err = rule.Key(r); err != nil {
		if errors.Is(err, ErrSkip) {
			return "", 0, ErrSkip
		}
		return "", 0, &keyError{rule.Policy.Name, err}
	}
	if rule.Cost == nil {
		return key, 1, nil
	}
	return key, rule.Cost(r), nil
}

// source returns where a request comes from, for the cap on new keys.
func (h *handler) source(r *http.Request) netip.Addr {
	if h.Limiter.newKeys.limit == 0 {
		return netip.Addr{}
	}
	addr, err := h.finder.addr(r)
	if err != nil {
		return netip.Addr{}
	}
	return addr
}

func (h *handler) deny(w http.ResponseWriter, r *http.Request, all []asked) {
	h.setHeaders(w.Header(), all, false)
	after := retrySeconds(all)
	if h.Jitter > 0 {
		after += rand.Int64N(seconds(h.Jitter) + 1)
	}
	w.Header().Set(headerRetry, strconv.FormatInt(after, 10))
	d := Denial{RetryAfter: time.Duration(after) * time.Second, Decisions: make([]Decision, len(all))}
	for i := range all {
		a := &all[i]
		d.Decisions[i] = a.decision
		if a.decision.Degraded && !a.decision.Allowed && h.Limiter.modeOf(&a.policy) == FailClosed {
			d.Unavailable = true
		}
	}
	h.Denied(w, r, d)
}

// setHeaders tells the client of its limits. When it was denied, only the
// policies that denied it say when there is more: Retry-After must not be
// earlier than any of these.
func (h *handler) setHeaders(header http.Header, all []asked, allowed bool) {
	var buf [160]byte
	b := buf[:0]
	for i := range all {
		a := &all[i]
		if !a.policy.told(&a.decision) {
			continue
		}
		if len(b) > 0 {
			b = append(b, ", "...)
		}
		b = appendLimit(b, &a.decision, allowed || !a.decision.Allowed)
	}
	if policies := h.policyHeader(all); policies != nil {
		header[headerPolicy] = policies
	}
	if len(b) > 0 {
		header[headerRateLimit] = fieldOf(b)
	}
	if h.XRateLimit {
		setXRateLimit(header, all, h.Limiter.clock())
	}
}

// policyHeader returns the value of RateLimit-Policy, nil for none. It has no
// room to append to, and so may be shared by responses.
func (h *handler) policyHeader(all []asked) []string {
	place := &h.written[policyPlace(all)]
	if w := place.Load(); w != nil && w.of(all) {
		return w.value
	}
	w := &writtenPolicies{policies: make([]Policy, len(all))}
	var b []byte
	for i := range all {
		p := &all[i].policy
		w.policies[i] = *p
		if p.Shadow || p.Unlimited {
			continue
		}
		if len(b) > 0 {
			b = append(b, ", "...)
		}
		b = appendPolicy(b, p)
	}
	if len(b) > 0 {
		w.value = []string{string(b)}
	}
	place.Store(w)
	return w.value
}

func (w *writtenPolicies) of(all []asked) bool {
	if len(w.policies) != len(all) {
		return false
	}
	for i := range all {
		if w.policies[i] != all[i].policy {
			return false
		}
	}
	return true
}
