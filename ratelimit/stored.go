package ratelimit

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

// StoredPolicy is a policy that the cluster keeps under a name. It comes before
// what callers bring under that name, on every member.
//
// With a limit it replaces the caller's policy, except for OnUnavailable where
// it says nothing of it. Without a limit the caller's numbers stay, and only
// Shadow, Unlimited, Synchronous, NoLeases, OnUnavailable and the overrides add to them.
// A caller's concurrency policy is replaced by one of its kind only, and one of
// another kind never by it.
type StoredPolicy struct {
	Policy    Policy
	Overrides []Override // for single keys, in the order of their keys
}

// Override changes what one key may use. It says one of Times, Limit and
// Unlimited.
type Override struct {
	Key       string
	Times     int64 // multiplies limit and burst, 1 to MaxLimit
	Limit     int64 // replaces the limit, 1 to MaxLimit
	Burst     int64 // with Limit: the burst; 0: as many
	Unlimited bool
}

// Bounds of stored policies.
const (
	MaxPolicies  = 10_000
	MaxOverrides = 5_000   // a policy
	maxRecord    = 512_000 // bytes of a policy as it travels
)

// ErrNoPolicy is returned where nothing is stored under a name.
var ErrNoPolicy = errors.New("ratelimit: no policy of that name is stored")

// Validate returns a [*FieldError] for the first field that is out of bounds.
func (s StoredPolicy) Validate() error {
	p := &s.Policy
	if p.Limit == 0 && !p.Unlimited {
		if err := validateFlagsOnly(p); err != nil {
			return err
		}
	} else if err := p.validate(); err != nil {
		return err
	}
	if p.Location != nil {
		if _, err := parseLocation(p.Location.String()); err != nil {
			return err
		}
	}
	if len(s.Overrides) > MaxOverrides {
		return badField("overrides", "must be at most %d, are %d", MaxOverrides, len(s.Overrides))
	}
	seen := make(map[string]bool, len(s.Overrides))
	for i := range s.Overrides {
		o := &s.Overrides[i]
		if err := o.validate(p); err != nil {
			return err
		}
		if seen[o.Key] {
			return badField("overrides", "has the key %.80q twice", o.Key)
		}
		seen[o.Key] = true
	}
	return nil
}

// validateFlagsOnly is for a policy that leaves the caller's numbers alone.
func validateFlagsOnly(p *Policy) error {
	if !validName(p.Name) {
		return p.validate()
	}
	switch {
	case p.Period != 0:
		return badField("period", "needs a limit")
	case p.Burst != 0:
		return badField("burst", "needs a limit")
	case p.Algorithm != 0:
		return badField("algorithm", "needs a limit")
	case p.Align != 0:
		return badField("align", "needs a limit")
	case p.Location != nil:
		return badField("timezone", "needs a limit")
	case p.OnUnavailable > FailLocal:
		return badField("on_unavailable", "must be open, closed or local, is %d", p.OnUnavailable)
	}
	return nil
}

func (o *Override) validate(p *Policy) error {
	if err := checkKey(o.Key); err != nil {
		return badField("overrides.key", "must be 1 to %d bytes, is %d", MaxKeyLen, len(o.Key))
	}
	if !utf8.ValidString(o.Key) {
		return badField("overrides.key", "must be UTF-8")
	}
	said := 0
	for _, is := range []bool{o.Times != 0, o.Limit != 0, o.Unlimited} {
		if is {
			said++
		}
	}
	if said != 1 {
		return badField("overrides", "for %.80q must say one of times, limit and unlimited", o.Key)
	}
	most := int64(MaxLimit)
	if p.Algorithm == Concurrency {
		most = MaxPlaces
	}
	if o.Times < 0 || o.Times > most {
		return badField("overrides.times", "for %.80q must be 1 to %d, is %d", o.Key, most, o.Times)
	}
	if o.Limit < 0 || o.Limit > most {
		return badField("overrides.limit", "for %.80q must be 1 to %d, is %d", o.Key, most, o.Limit)
	}
	if o.Burst == 0 {
		return nil
	}
	if o.Limit == 0 {
		return badField("overrides.burst", "for %.80q needs a limit", o.Key)
	}
	q := *p
	if p.Limit == 0 {
		q.Period = MinPeriod // the caller's is not known
	}
	q.Limit, q.Burst = o.Limit, o.Burst
	if err := q.validate(); err != nil {
		return badField("overrides.burst", "for %.80q: %v", o.Key, err)
	}
	return nil
}

// apply changes p for this key.
func (o *Override) apply(p *Policy) {
	most := int64(MaxLimit)
	if p.Algorithm == Concurrency {
		most = MaxPlaces
	}
	switch {
	case o.Unlimited:
		p.Unlimited = true
	case o.Times > 0:
		p.Limit, _ = mul(p.Limit, o.Times).div(1, most)
		p.Burst, _ = mul(p.Burst, o.Times).div(1, most)
	default:
		p.Limit, p.Burst = min(o.Limit, most), o.Burst
		if p.Algorithm != TokenBucket || p.Burst != 0 && p.validateBurst() != nil {
			p.Burst = 0
		}
	}
}

// resolve puts what is stored under the policy's name in its place, for this
// key, and refuses what no limiter should work with.
func (l *Limiter) resolve(p *Policy, key string) error {
	if err := p.validate(); err != nil {
		return err
	}
	if err := checkKey(key); err != nil {
		return err
	}
	if l.closed.Load() {
		return ErrClosed
	}
	known := l.policies.known.Load()
	if known == nil {
		return nil
	}
	if s := known.policies[p.Name]; s != nil && !s.deleted {
		s.apply(p, key)
	}
	return nil
}

// entry is a stored policy as a member keeps it at hand. It is not changed once
// others can see it.
type entry struct {
	version   uint32
	deleted   bool
	stored    StoredPolicy
	overrides map[string]*Override
}

func newEntry(version uint32, s StoredPolicy) *entry {
	e := &entry{version: version, stored: s, overrides: make(map[string]*Override, len(s.Overrides))}
	for i := range s.Overrides {
		e.overrides[s.Overrides[i].Key] = &s.Overrides[i]
	}
	return e
}

func (e *entry) apply(p *Policy, key string) {
	s := &e.stored.Policy
	if s.Limit != 0 && (s.Algorithm == Concurrency) != (p.Algorithm == Concurrency) {
		return
	}
	if s.Limit == 0 {
		p.Shadow = p.Shadow || s.Shadow
		p.Synchronous = p.Synchronous || s.Synchronous
		p.NoLeases = p.NoLeases || s.NoLeases
		p.Unlimited = p.Unlimited || s.Unlimited
		if s.OnUnavailable != 0 {
			p.OnUnavailable = s.OnUnavailable
		}
	} else {
		mode := p.OnUnavailable
		*p = *s
		if p.OnUnavailable == 0 {
			p.OnUnavailable = mode
		}
	}
	p.version = e.version
	if o := e.overrides[key]; o != nil {
		o.apply(p)
	}
}

// StoredPolicies returns what is stored, in the order of the names, as this
// member knows it.
func (l *Limiter) StoredPolicies() []StoredPolicy {
	if l.fake != realLimiter {
		return nil
	}
	known := l.policies.known.Load()
	if known == nil {
		return nil
	}
	var all []StoredPolicy
	for _, e := range known.policies {
		if !e.deleted {
			all = append(all, e.stored.clone())
		}
	}
	slices.SortFunc(all, func(a, b StoredPolicy) int { return strings.Compare(a.Policy.Name, b.Policy.Name) })
	return all
}

// StoredPolicy returns the policy that is stored under name, as this member
// knows it.
func (l *Limiter) StoredPolicy(name string) (StoredPolicy, bool) {
	if l.fake != realLimiter {
		return StoredPolicy{}, false
	}
	known := l.policies.known.Load()
	if known == nil {
		return StoredPolicy{}, false
	}
	e := known.policies[name]
	if e == nil || e.deleted {
		return StoredPolicy{}, false
	}
	return e.stored.clone(), true
}

func (s StoredPolicy) clone() StoredPolicy {
	s.Overrides = slices.Clone(s.Overrides)
	return s
}
