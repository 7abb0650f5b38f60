package auth

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// NoStale, as Config.StaleTTL, means that nothing is served past PositiveTTL, whether the store is up or not.
const NoStale = time.Duration(-1)

// Config says how keys are verified. Only Store is required.
type Config struct {
	// Cluster is the node whose other members hear of changes; nil: this process is alone.
	Cluster *cluster.Node
	// Store keeps the keys. It is not closed by the Authenticator.
	Store Store
	// Shared is the cache between this member's own and the store; nil: the cluster's KV, and none without a Cluster.
	// NoShared switches it off, which is quicker where the store is as near as a file.
	Shared Shared
	// Namespace tells apart several Authenticators on one node: 1 to 32 of a-z, 0-9, hyphen; default "default".
	Namespace string
	// Prefix is what keys made here start with, before "_live_" or "_test_": lower-case letters and digits, at most
	// 16; default "pl". Keys that were made under another prefix stay valid, but lose the check of their checksum.
	Prefix string
	// Logger takes a line for each change of state, such as the store going away; nil: silent.
	Logger *slog.Logger

	// PositiveTTL is for how long a known key is used without asking the store; default 5 m, at most 24 h. It is
	// no bound on revocation, which is immediate.
	PositiveTTL time.Duration
	// NegativeTTL is the same for unknown keys; default 30 s, at most 1 h.
	NegativeTTL time.Duration
	// StaleTTL is for how long after PositiveTTL a key may be used while the store is down; default 5 m, at most
	// 24 h; NoStale: never.
	StaleTTL time.Duration
	// NearBytes bounds this member's cache of known keys; default 32 MiB (about 50,000 keys), at least 2 MiB.
	NearBytes int64
	// NearUnknown bounds the number of unknown keys that are remembered; default 65,536 (about 8 MiB), at least 16.
	NearUnknown int

	// StoreTimeout bounds one look-up; default 1 s, at least 1 ms.
	StoreTimeout time.Duration
	// StoreCalls bounds the look-ups of unknown keys under way at once on this member; default 64. Keys that were
	// known here not long ago have as many for themselves, so that guesses don't hold them up.
	StoreCalls int

	// FailureLimit limits failed verifications per client; nil: unlimited.
	FailureLimit FailureLimit
	// LastUsedEvery is how exactly, and how often, the time of last use is written; default 1 m, at least 1 s; a
	// negative one switches it off.
	LastUsedEvery time.Duration

	// HTTP says how Handler finds keys and clients.
	HTTP HTTPConfig

	// Now replaces time.Now in tests.
	Now func() time.Time

	peers     peers                                                       // replaces Cluster in tests
	changelog func(context.Context, changelogOp) (changelogResult, error) // replaces the table in tests
}

// FailureLimit says how long a client has to wait before it may try another key; 0 or less: not at all. It is called
// with 0 failures before a key that is not known here is looked up, which must cost the client nothing, and with 1
// after each failed verification. The client is what WithClient or the middleware put in ctx, never something taken
// from the presented key: whoever guesses keys spends only what is their own. With package ratelimit:
//
//	failures := ratelimit.PerMinute("auth-failures", 20)
//	limit := func(ctx context.Context, client string, n int) time.Duration {
//		if n > 0 {
//			_, _ = limits.Allow(ctx, failures, client)
//			return 0
//		}
//		d, _ := limits.Status(ctx, failures, client)
//		if d.Allowed {
//			return 0
//		}
//		return d.RetryAfter
//	}
type FailureLimit func(ctx context.Context, client string, failures int) (retryAfter time.Duration)

var namespacePattern = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// withDefaults returns a copy with defaults filled in, or an error that names the field and its bounds.
func (c Config) withDefaults() (Config, error) {
	if c.Store == nil {
		return c, fmt.Errorf("auth: Config.Store: nil, want a store")
	}
	if c.Namespace == "" {
		c.Namespace = "default"
	}
	if !namespacePattern.MatchString(c.Namespace) {
		return c, fmt.Errorf("auth: Config.Namespace: %q, want 1 to 32 of a-z, 0-9, hyphen", c.Namespace)
	}
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.StaleTTL == NoStale {
		c.StaleTTL = 0
	} else if c.StaleTTL == 0 {
		c.StaleTTL = 5 * time.Minute
	}
	for _, d := range []struct {
		name             string
		value            *time.Duration
		fallback, lo, hi time.Duration
	}{
		{"PositiveTTL", &c.PositiveTTL, 5 * time.Minute, time.Millisecond, 24 * time.Hour},
		{"NegativeTTL", &c.NegativeTTL, 30 * time.Second, time.Millisecond, time.Hour},
		{"StaleTTL", &c.StaleTTL, 0, 0, 24 * time.Hour},
		{"StoreTimeout", &c.StoreTimeout, time.Second, time.Millisecond, time.Minute},
	} {
		if *d.value == 0 {
			*d.value = d.fallback
		}
		if *d.value < d.lo || *d.value > d.hi {
			return c, fmt.Errorf("auth: Config.%s: %v, want %v to %v", d.name, *d.value, d.lo, d.hi)
		}
	}
	if c.LastUsedEvery == 0 {
		c.LastUsedEvery = time.Minute
	}
	if c.LastUsedEvery > 0 && c.LastUsedEvery < time.Second {
		return c, fmt.Errorf("auth: Config.LastUsedEvery: %v, want at least %v, or a negative one", c.LastUsedEvery, time.Second)
	}
	if c.NearBytes == 0 {
		c.NearBytes = 32 << 20
	}
	if c.NearBytes < 2<<20 {
		return c, fmt.Errorf("auth: Config.NearBytes: %d, want at least %d", c.NearBytes, 2<<20)
	}
	if c.NearUnknown == 0 {
		c.NearUnknown = 65536
	}
	if c.NearUnknown < unknownShards {
		return c, fmt.Errorf("auth: Config.NearUnknown: %d, want at least %d", c.NearUnknown, unknownShards)
	}
	if c.StoreCalls == 0 {
		c.StoreCalls = 64
	}
	if c.StoreCalls < 1 {
		return c, fmt.Errorf("auth: Config.StoreCalls: %d, want at least 1", c.StoreCalls)
	}
	c.HTTP = c.HTTP.withDefaults()
	return c, nil
}
