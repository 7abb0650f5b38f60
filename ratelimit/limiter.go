package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// Config of a [Limiter]. The zero value is a limiter of this process alone.
type Config struct {
	// Cluster decides together with the other members. nil: this process
	// alone, for tests and as a way back.
	Cluster *cluster.Node
	// Namespace keeps limiters on one cluster apart: 1 to 32 of a-z, 0-9, _
	// and -. Empty: "default". The same one twice on a member is an error.
	Namespace string
	// OnUnavailable decides while nobody who may decide answers. Zero:
	// FailOpen.
	OnUnavailable FailureMode
	// MaxKeys is how many keys this member holds at most, copies among them.
	// Beyond it the soonest to expire is forgotten. 0: 4,000,000.
	MaxKeys int
	// Logger gets a line when a policy becomes degraded or recovers. nil:
	// silent.
	Logger *slog.Logger
	// Observer is told of every decision. nil: nobody.
	Observer Observer
	// NewKeysPerMinute is how many keys of a policy a [Middleware] creates for
	// one source, an IPv4 /24 or an IPv6 /48, in a minute: beyond it, keys that
	// nobody has used yet share one bucket, so that made-up keys do not fill
	// the memory. 0: 100,000; negative: no cap.
	NewKeysPerMinute int
	// NoLeases: this member decides nothing by itself about keys that another
	// one holds. See Policy.NoLeases.
	NoLeases bool
	// Now replaces the clock in tests of a limiter without a cluster.
	Now func() time.Time
}

var namespacePattern = regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)

func (cfg *Config) validate() error {
	switch {
	case cfg.Namespace != "" && !namespacePattern.MatchString(cfg.Namespace):
		return badField("namespace", "must be 1 to 32 of a-z, 0-9, _ and -, is %.80q", cfg.Namespace)
	case cfg.OnUnavailable > FailLocal:
		return badField("on_unavailable", "must be open, closed or local, is %d", cfg.OnUnavailable)
	case cfg.MaxKeys < 0:
		return badField("max_keys", "must be 0 (the default) or more, is %d", cfg.MaxKeys)
	case cfg.Now != nil && cfg.Cluster != nil:
		return badField("now", "is for a limiter without a cluster")
	}
	return nil
}

type table = cluster.Table[state, op, result, machine]

// Limiter decides. Its methods may be called concurrently.
type Limiter struct {
	table         *table
	local         *table // for FailLocal; nil where table is local itself
	onUnavailable FailureMode
	observer      Observer
	now           func() time.Time
	members       func() int
	degraded      degradation
	calendars     calendars
	fake          fake
	policies      *catalogue
	newKeys       newKeys
	borrower      *borrower // nil: nothing is borrowed
	recalls       *recalls  // nil: without a cluster
	closed        atomic.Bool
	stop          context.CancelFunc // ends what runs by itself
	running       running
}

// New returns a limiter. Two on one cluster member need two namespaces.
func New(cfg Config) (*Limiter, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	l := &Limiter{
		onUnavailable: cfg.OnUnavailable,
		observer:      cfg.Observer,
		now:           time.Now,
		members:       memberCount(cfg.Cluster),
	}
	if l.onUnavailable == 0 {
		l.onUnavailable = FailOpen
	}
	l.degraded.logger = cfg.Logger
	if cfg.Logger == nil {
		l.degraded.logger = slog.New(slog.DiscardHandler)
	}
	tc := cluster.TableConfig{Name: "ratelimit:default", MaxEntries: cfg.MaxKeys}
	if cfg.Namespace != "" {
		tc.Name = "ratelimit:" + cfg.Namespace
	}
	if cfg.Now != nil {
		l.now = cfg.Now
		tc.Now = func() int64 { return cfg.Now().UnixNano() }
	}
	l.newKeys.init(cfg.NewKeysPerMinute, l.now)
	var err error
	if l.table, err = newTable(cfg.Cluster, tc); err != nil {
		return nil, err
	}
	if cfg.Cluster != nil {
		local := tc
		local.Name += ":local"
		if l.local, err = newTable(nil, local); err != nil {
			return nil, errors.Join(err, l.table.Close())
		}
	}
	if l.policies, err = newCatalogue(cfg.Cluster, tc, l.degraded.logger); err != nil {
		return nil, errors.Join(err, l.table.Close())
	}
	if cfg.Cluster != nil {
		if !cfg.NoLeases {
			l.borrower = newBorrower(l.table, cfg.Cluster.Self().Boot, l.now, &l.calendars)
		}
		l.recalls = newRecalls(cfg.Cluster, tc.Name, l.borrower)
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	if cfg.Cluster != nil && l.running.begin() {
		go func() {
			defer l.running.end()
			l.policies.follow(ctx)
		}()
	}
	return l, nil
}

func newTable(node *cluster.Node, tc cluster.TableConfig) (*table, error) {
	t, err := cluster.NewTable[state, op, result](node, machine{clustered: node != nil}, tc)
	if err != nil {
		return nil, fmt.Errorf("ratelimit: %w", err)
	}
	return t, nil
}

// Close ends the limiter; what it counted stays with the cluster. It may be
// called twice.
func (l *Limiter) Close() error {
	if l.fake != realLimiter || l.closed.Swap(true) {
		return nil
	}
	l.stop()
	l.running.close()
	if l.recalls != nil {
		l.recalls.close()
	}
	err := errors.Join(l.table.Close(), l.policies.table.Close())
	if l.local != nil {
		err = errors.Join(err, l.local.Close())
	}
	return err
}

// clock returns the wall clock.
func (l *Limiter) clock() time.Time {
	if l.now == nil { // a fake
		return time.Now()
	}
	return l.now()
}
