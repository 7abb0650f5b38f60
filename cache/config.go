package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// Prefixes that keys of this module's own uses have by convention, so that
// people who look at a cache can tell them.
const (
	PrefixAuth      = "auth:"
	PrefixRateLimit = "ratelimit:"
)

// Bounds.
const (
	MaxKey   = 4096               // bytes of a key, at least 1
	MaxValue = cluster.MaxKVValue // bytes of an encoded value: 1 MiB
	MinTTL   = time.Millisecond
	MaxTTL   = cluster.MaxKVTTL // 366 days
	MaxMany  = 10_000           // keys of one GetMany
)

// Errors. Those that name a bound or a field are ErrInvalid.
var (
	// ErrInvalid: an argument or a Config field is out of its bounds.
	ErrInvalid = errors.New("invalid")
	// ErrNotFound is what a loader returns where there is nothing to load, and
	// what GetOrLoad returns then.
	ErrNotFound = errors.New("cache: not found")
	// ErrWrongKind: the key is a counter's where a value was given, or the
	// other way round.
	ErrWrongKind = cluster.ErrWrongKind
	// ErrUnavailable: what was asked can't be had from this member now.
	ErrUnavailable = cluster.ErrKVUnavailable
	// ErrClosed: the cache was closed.
	ErrClosed = errors.New("cache: closed")
)

// Config of a cache or a counter. The zero value is a cache of this process.
type Config struct {
	// Cluster is the member whose cluster shares the cache. Nil: this process
	// alone.
	Cluster *cluster.Node
	// Namespace keeps caches apart: 1 to 48 of a-z, 0-9, colon, underscore,
	// hyphen. Default "cache". One member has one cache of a namespace.
	Namespace string
	// Codec turns values into bytes. Default [Raw] for []byte, [JSON] for all
	// else.
	Codec Codec
	// Near is how many bytes this member keeps in front of the shared store,
	// keys and bookkeeping included. Default 32 MiB; negative: nothing.
	Near int64
	// NearTTL is the longest that a value is answered from there before the
	// shared store is asked again, 1 ms to 1 h. Default 30 s. A value's own time
	// to live ends it earlier.
	NearTTL time.Duration
	// NegativeTTL is for how long "there is no such thing" is remembered on the
	// member that was told so, 1 ms to 1 h. Default 30 s; negative: not at all.
	NegativeTTL time.Duration
	// NegativeKeys is how many of those are remembered. Default 10,000.
	NegativeKeys int
	// Timeout bounds what a call waits for the other members, 1 ms to 1 min.
	// Default 250 ms.
	Timeout time.Duration
	// LoadTimeout bounds a load, 1 ms to 1 h. Default 10 s. What took more than
	// 30 s is returned, but not shared.
	LoadTimeout time.Duration
	// Logger is silent by default.
	Logger *slog.Logger
	// Observe is told how long each call took that was not answered from near,
	// by its name: get, set, delete, load, get_many, delete_prefix, len, ttl. It
	// must return quickly.
	Observe func(op string, took time.Duration)

	// KV takes the place of the shared store, Bus that of the other members, in
	// tests and for caches of one process that share a store. A KV without a Bus
	// is one that nobody else writes to.
	KV  KV
	Bus Bus
}

// KV is the shared store. *cluster.KV is one.
type KV interface {
	Get(ctx context.Context, key string) (it cluster.KVItem, ok bool, err error)
	GetMany(ctx context.Context, keys []string) (map[string]cluster.KVItem, error)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	Fill(ctx context.Context, key string, value []byte, ttl time.Duration, since int64) error
	Delete(ctx context.Context, key string) error
	DeleteAt(ctx context.Context, key string, at int64) error
	Mark(ctx context.Context, key string, ttl time.Duration) error
	Unmark(ctx context.Context, key string) error
	Keys(ctx context.Context, prefix string) ([]string, error)
	Count(ctx context.Context, prefix string) (int, error)
	Now() int64
	Healthy() bool
	BreakerState() string
	ResetBreaker()
}

// Bus tells the other members what to forget. *cluster.Node is one.
type Bus interface {
	// Broadcast runs the handlers of kind on all members, this one among them,
	// and waits until they have returned or ctx ends.
	Broadcast(ctx context.Context, kind string, payload []byte) cluster.Receipt
	// Handle sets the handler of kind; nil removes it.
	Handle(kind string, h func(ctx context.Context, from cluster.Member, payload []byte) ([]byte, error))
}

// Hearing tells when this member last heard from the others. A Bus that is none
// is trusted never to be cut off.
type Hearing interface {
	// LastHeard is when a message of any other live member last arrived, with
	// the monotonic clock's reading, or the zero time where there is no other.
	LastHeard() time.Time
}

var namespaces = regexp.MustCompile(`^[a-z0-9:_-]{1,48}$`)

func (cfg Config) withDefaults() Config {
	if cfg.Namespace == "" {
		cfg.Namespace = "cache"
	}
	if cfg.Near == 0 {
		cfg.Near = 32 << 20
	}
	if cfg.NearTTL == 0 {
		cfg.NearTTL = 30 * time.Second
	}
	if cfg.NegativeTTL == 0 {
		cfg.NegativeTTL = 30 * time.Second
	}
	if cfg.NegativeKeys == 0 {
		cfg.NegativeKeys = 10_000
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 250 * time.Millisecond
	}
	if cfg.LoadTimeout == 0 {
		cfg.LoadTimeout = 10 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

func (cfg Config) validate() error {
	if !namespaces.MatchString(cfg.Namespace) {
		return fmt.Errorf("cache: %w Config.Namespace %.64q: want 1 to 48 of a-z, 0-9, colon, underscore, hyphen", ErrInvalid, cfg.Namespace)
	}
	for _, f := range []struct {
		name     string
		d        time.Duration
		longest  time.Duration
		negative bool
	}{
		{"NearTTL", cfg.NearTTL, time.Hour, false},
		{"NegativeTTL", cfg.NegativeTTL, time.Hour, true},
		{"Timeout", cfg.Timeout, time.Minute, false},
		{"LoadTimeout", cfg.LoadTimeout, time.Hour, false},
	} {
		if f.negative && f.d < 0 {
			continue
		}
		if f.d < time.Millisecond || f.d > f.longest {
			return fmt.Errorf("cache: %w Config.%s %v: want %v to %v", ErrInvalid, f.name, f.d, time.Millisecond, f.longest)
		}
	}
	if cfg.NegativeKeys < 0 {
		return fmt.Errorf("cache: %w Config.NegativeKeys %d: want 0 (the default) or more", ErrInvalid, cfg.NegativeKeys)
	}
	if cfg.Cluster != nil && (cfg.KV != nil || cfg.Bus != nil) {
		return fmt.Errorf("cache: %w Config.KV, Config.Bus: only without Config.Cluster", ErrInvalid)
	}
	if cfg.Bus != nil && cfg.KV == nil {
		return fmt.Errorf("cache: %w Config.Bus: only with Config.KV", ErrInvalid)
	}
	return nil
}

// connect finds the shared store and the other members.
func (cfg Config) connect() (KV, Bus, error) {
	switch {
	case cfg.Cluster != nil:
		return cfg.Cluster.KV(), cfg.Cluster, nil
	case cfg.KV != nil && cfg.Bus != nil:
		return cfg.KV, cfg.Bus, nil
	case cfg.KV != nil:
		return cfg.KV, new(alone), nil
	default:
		return cluster.LocalKV(0), new(alone), nil
	}
}

func checkKey(key string) error {
	if len(key) == 0 || len(key) > MaxKey {
		return fmt.Errorf("cache: %w key of %d bytes: want 1 to %d", ErrInvalid, len(key), MaxKey)
	}
	return nil
}

func checkTTL(ttl time.Duration) error {
	if ttl < MinTTL || ttl > MaxTTL {
		return fmt.Errorf("cache: %w ttl %v: want %v to %v", ErrInvalid, ttl, MinTTL, MaxTTL)
	}
	return nil
}
