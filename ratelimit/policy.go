package ratelimit

import (
	"math"
	"math/bits"
	"time"
)

// Bounds of a policy.
const (
	MaxLimit  = 1 << 53 // permits, for limit, burst and cost
	MinPeriod = time.Millisecond
	MaxPeriod = 50 * 365 * 24 * time.Hour // also bounds the time in which a burst comes back
	// MaxPlaces bounds the limit of a concurrency policy: each place taken is
	// an item of the key's state.
	MaxPlaces = 10_000
	// MaxNameLen is the length of a policy's name: letters, digits and . _ : -
	MaxNameLen = 64
	// MaxKeyLen is the length of a key in bytes. A key is any bytes, at least
	// one; see [Hashed] for longer ones.
	MaxKeyLen = 1024
)

// Algorithm decides how permits come back. See the package comment for which
// to choose.
type Algorithm uint8

const (
	// TokenBucket lets permits come back one by one, evenly over the period.
	TokenBucket Algorithm = iota
	// SlidingWindow counts the current window and a share of the last one.
	SlidingWindow
	// FixedWindow gives the whole limit back when a window ends.
	FixedWindow
	// Concurrency limits how many calls are in flight; see [Limiter.Acquire].
	Concurrency
)

var algorithmNames = [...]string{"token-bucket", "sliding-window", "fixed-window", "concurrency"}

// String returns the name that JSON and YAML use.
func (a Algorithm) String() string {
	if int(a) < len(algorithmNames) {
		return algorithmNames[a]
	}
	return "invalid"
}

// ParseAlgorithm is the inverse of String; an empty string is TokenBucket.
func ParseAlgorithm(s string) (Algorithm, error) {
	if s == "" {
		return TokenBucket, nil
	}
	for i, name := range algorithmNames {
		if s == name {
			return Algorithm(i), nil
		}
	}
	return 0, badField("algorithm", "must be token-bucket, sliding-window, fixed-window or concurrency, is %.40q", s)
}

// Policy says how much of something may be used. It is a plain value; the zero
// value is not valid.
//
// A decision is judged by the policy that the caller brings, what was used is
// kept by the cluster: two versions of a service may bring different limits of
// one policy during a deployment, and neither lets more through than its own
// limit allows.
type Policy struct {
	// Name tells policies apart: state belongs to (policy, key). 1 to
	// MaxNameLen letters, digits and . _ : -
	Name string
	// Limit is the number of permits a period, 1 to MaxLimit.
	Limit int64
	// Period is MinPeriod to MaxPeriod. For Concurrency it is how long a place
	// is held unless it is renewed. Zero where Align is set.
	Period time.Duration
	// Burst is how many permits a token bucket holds when it is full, 1 to
	// MaxLimit. 0: as many as Limit. Other algorithms have none.
	Burst int64
	// Algorithm is TokenBucket unless said otherwise.
	Algorithm Algorithm
	// Align makes the windows of a FixedWindow those of the calendar, in
	// Location. Unaligned, a window starts at the first hit.
	Align Alignment
	// Location is the time zone of Align; nil: UTC.
	Location *time.Location
	// Synchronous: an answer waits until the backup has the change, so that
	// not one permit is granted twice when a member dies.
	Synchronous bool
	// Shadow: count, never deny. Decision.Reason says where it would have.
	Shadow bool
	// Unlimited: allow everything and count nothing.
	Unlimited bool
	// NoLeases: every decision is made by the holder of its key. Else a member
	// that sees a key often is lent a part of its permits, which it hands out
	// by itself for up to 100 ms, and remembers a denial for up to 250 ms; no
	// more than the limit is allowed either way. It costs that a member which
	// dies takes what it was lent with it, at most 2 % of what can be had at
	// once, and that Remaining may be 100 ms old. Synchronous policies and
	// those with less than 800 permits to be had at once are never lent from.
	NoLeases bool
	// OnUnavailable overrides Config.OnUnavailable for this policy.
	OnUnavailable FailureMode

	version uint32 // of the stored policy this comes from; 0: a caller's own
}

// PerSecond returns a token-bucket policy of limit permits a second.
func PerSecond(name string, limit int64) Policy { return per(name, limit, time.Second) }

// PerMinute returns a token-bucket policy of limit permits a minute.
func PerMinute(name string, limit int64) Policy { return per(name, limit, time.Minute) }

// PerHour returns a token-bucket policy of limit permits an hour.
func PerHour(name string, limit int64) Policy { return per(name, limit, time.Hour) }

// PerDay returns a token-bucket policy of limit permits in 24 hours.
func PerDay(name string, limit int64) Policy { return per(name, limit, 24*time.Hour) }

func per(name string, limit int64, period time.Duration) Policy {
	return Policy{Name: name, Limit: limit, Period: period}
}

// Calendar returns a fixed-window policy whose windows are those of the
// calendar in loc; nil: UTC.
func Calendar(name string, limit int64, align Alignment, loc *time.Location) Policy {
	return Policy{Name: name, Limit: limit, Algorithm: FixedWindow, Align: align, Location: loc}
}

// InFlight returns a concurrency policy: at most limit calls at once. A place
// that is neither released nor renewed for hold is free again.
func InFlight(name string, limit int64, hold time.Duration) Policy {
	return Policy{Name: name, Limit: limit, Period: hold, Algorithm: Concurrency}
}

// Validate returns a [*FieldError] for the first field that is out of bounds.
func (p Policy) Validate() error { return p.validate() }

func (p *Policy) validate() error {
	if !validName(p.Name) {
		return badField("policy", "must be 1 to %d letters, digits or . _ : -, is %.80q", MaxNameLen, p.Name)
	}
	if p.Unlimited && p.Limit == 0 {
		return nil
	}
	if p.Limit < 1 || p.Limit > MaxLimit {
		return badField("limit", "must be 1 to %d, is %d", int64(MaxLimit), p.Limit)
	}
	if p.Algorithm > Concurrency {
		return badField("algorithm", "must be token-bucket, sliding-window, fixed-window or concurrency, is %d", p.Algorithm)
	}
	if p.Align != Unaligned {
		if err := p.validateAlign(); err != nil {
			return err
		}
	} else if p.Period < MinPeriod || p.Period > MaxPeriod {
		return badField("period", "must be %s to %s, is %s", MinPeriod, MaxPeriod, p.Period)
	}
	if p.Burst != 0 && p.Burst != p.Limit {
		if err := p.validateBurst(); err != nil {
			return err
		}
	}
	if p.Algorithm == Concurrency && p.Limit > MaxPlaces {
		return badField("limit", "must be 1 to %d for concurrency, is %d", MaxPlaces, p.Limit)
	}
	if p.OnUnavailable > FailLocal {
		return badField("on_unavailable", "must be open, closed or local, is %d", p.OnUnavailable)
	}
	return nil
}

func (p *Policy) validateAlign() error {
	if p.Algorithm != FixedWindow {
		return badField("align", "needs the algorithm fixed-window, is with %s", p.Algorithm)
	}
	if p.Align > Month {
		return badField("align", "must be second, minute, hour, day, week or month, is %d", p.Align)
	}
	if p.Period != 0 {
		return badField("period", "must be absent where align says %s, is %s", p.Align, p.Period)
	}
	return nil
}

func (p *Policy) validateBurst() error {
	if p.Burst < 0 || p.Burst > MaxLimit {
		return badField("burst", "must be 1 to %d, is %d", int64(MaxLimit), p.Burst)
	}
	if p.Algorithm != TokenBucket {
		return badField("burst", "is for token-bucket only; with %s it must be absent or the limit, is %d", p.Algorithm, p.Burst)
	}
	hi, lo := bits.Mul64(uint64(p.Burst), uint64(p.Period))
	if hi >= uint64(p.Limit) {
		return burstTooSlow(p)
	}
	if fill, _ := bits.Div64(hi, lo, uint64(p.Limit)); fill > uint64(MaxPeriod) {
		return burstTooSlow(p)
	}
	return nil
}

func burstTooSlow(p *Policy) error {
	return badField("burst", "must come back within %s, but %d at %d per %s does not", MaxPeriod, p.Burst, p.Limit, p.Period)
}

// capacity is what can be had at once: the burst, or else the limit.
func (p *Policy) capacity() int64 {
	if p.Burst != 0 {
		return p.Burst
	}
	return p.Limit
}

// nameBytes has a bit for each byte that a policy's name may contain.
var nameBytes = func() (set [256]bool) {
	for c := range set {
		set[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			c == '.' || c == '_' || c == ':' || c == '-'
	}
	return set
}()

func validName(name string) bool {
	if len(name) == 0 || len(name) > MaxNameLen {
		return false
	}
	for i := range len(name) {
		if !nameBytes[name[i]] {
			return false
		}
	}
	return true
}

func checkKey(key string) error {
	if len(key) == 0 || len(key) > MaxKeyLen {
		return badField("key", "must be 1 to %d bytes, is %d", MaxKeyLen, len(key))
	}
	return nil
}

// checkCost lets 0 pass: it is always allowed and spends nothing.
func (p *Policy) checkCost(cost int64) error {
	if cost < 0 {
		return badField("cost", "must be 0 or more, is %d", cost)
	}
	most := int64(MaxLimit)
	if !p.Unlimited {
		most = p.capacity()
	}
	if cost > most {
		what := "limit"
		if p.Burst != 0 && p.Burst != p.Limit {
			what = "burst"
		}
		return badField("cost", "must be at most the %s of policy %s, %d, is %d", what, p.Name, most, cost)
	}
	return nil
}

// seconds rounds d up to whole seconds; negative durations are 0.
func seconds(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	if d > math.MaxInt64-time.Second {
		return int64(d / time.Second)
	}
	return int64((d + time.Second - 1) / time.Second)
}
