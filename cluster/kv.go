package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/kv"
	"github.com/peerlimit/peerlimit/cluster/internal/peer"
)

// KVItem is what a key of the [KV] holds.
type KVItem = kv.Item

// KVStats is the state of a [KVStore] on this member.
type KVStats = kv.Stats

// The kinds of a [KVItem].
const (
	KindValue   = kv.KindValue
	KindCounter = kv.KindCounter
)

// Bounds of the KV, in bytes and time.
const (
	MaxKVKey   = kv.MaxKey
	MaxKVValue = kv.MaxValue
	MaxKVTTL   = kv.MaxTTL
)

// Errors of the KV.
var (
	// ErrKVUnavailable: it can't be used now, or did not answer in time.
	ErrKVUnavailable = kv.ErrUnavailable
	// ErrKVOpen: its breaker is open, or tries it with few calls; it was not
	// asked. It is an ErrKVUnavailable.
	ErrKVOpen = fmt.Errorf("%w: its breaker is open", kv.ErrUnavailable)
	// ErrWrongKind: the key is a counter's where a value was given, or the
	// other way round.
	ErrWrongKind = kv.ErrWrongKind
)

// KVStore is a store of values that can be loaded again, and what a [KV] puts
// its breaker before. Its methods are called concurrently. Times to live are
// from 1 ms to [MaxKVTTL], keys 1 to [MaxKVKey] bytes long, values at most
// [MaxKVValue].
type KVStore interface {
	// Get returns what key holds; ok is false where that is nothing. The
	// value must not be modified.
	Get(ctx context.Context, key string) (it KVItem, ok bool, err error)
	GetMany(ctx context.Context, keys []string) (map[string]KVItem, error)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// Fill stores what was loaded, unless the key was written or deleted since
	// the instant at which the load began, see Now.
	Fill(ctx context.Context, key string, value []byte, ttl time.Duration, since int64) error
	SetIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error)
	Delete(ctx context.Context, key string) error
	// DeleteAt removes what was written before an instant, and nothing newer.
	DeleteAt(ctx context.Context, key string, at int64) error
	// Mark makes key a counter's; Unmark undoes it.
	Mark(ctx context.Context, key string, ttl time.Duration) error
	Unmark(ctx context.Context, key string) error
	// Keys and Count are about the keys that hold a value, on all members.
	Keys(ctx context.Context, prefix string) ([]string, error)
	Count(ctx context.Context, prefix string) (int, error)
	// Now is the clock that versions are instants on.
	Now() int64
	Healthy() bool
	Stats() KVStats
}

// KV is the cluster's store of values that can be loaded again, with a circuit
// breaker before it: five failures in a row open it, ten seconds later two calls
// are let through, and two successes close it. While it is open calls say
// [ErrKVOpen] at once.
//
// It promises that a value stays until its time to live is over, through joins,
// graceful leaves and one death at a time, and that a deleted key stays deleted.
// It does not promise that a value is there: use package cache, to which a KV
// that says nothing is a miss.
type KV struct {
	store   KVStore
	breaker kvBreaker
	own     *kv.Store // nil: nothing to leave or to close
}

// NewKV puts a breaker before a store. [Node.KV] has one already.
func NewKV(store KVStore, logger *slog.Logger) *KV {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	k := &KV{store: store}
	k.breaker.init(logger)
	return k
}

// LocalKV returns a KV of this process alone, which holds about maxBytes; 0
// means 128 MiB.
func LocalKV(maxBytes int64) *KV { return NewKV(kv.NewLocal(maxBytes), nil) }

// Get returns what key holds; ok is false where that is nothing. The value must
// not be modified.
func (k *KV) Get(ctx context.Context, key string) (it KVItem, ok bool, err error) {
	err = k.breaker.guard(func() (err error) {
		it, ok, err = k.store.Get(ctx, key)
		return err
	})
	return it, ok, err
}

// GetMany returns what the keys hold, without those that hold nothing.
func (k *KV) GetMany(ctx context.Context, keys []string) (found map[string]KVItem, err error) {
	err = k.breaker.guard(func() (err error) {
		found, err = k.store.GetMany(ctx, keys)
		return err
	})
	return found, err
}

// Set stores a value. It says [ErrWrongKind] where the key is a counter's.
func (k *KV) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return k.breaker.guard(func() error { return k.store.Set(ctx, key, value, ttl) })
}

// Fill stores what was loaded, unless the key was written or deleted since the
// instant at which the load began.
func (k *KV) Fill(ctx context.Context, key string, value []byte, ttl time.Duration, since int64) error {
	return k.breaker.guard(func() error { return k.store.Fill(ctx, key, value, ttl, since) })
}

// SetIfAbsent stores a value unless key holds one, and tells whether it did.
func (k *KV) SetIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (set bool, err error) {
	err = k.breaker.guard(func() (err error) {
		set, err = k.store.SetIfAbsent(ctx, key, value, ttl)
		return err
	})
	return set, err
}

// Delete removes a value. For a minute nothing that was under way can bring it
// back.
func (k *KV) Delete(ctx context.Context, key string) error {
	return k.breaker.guard(func() error { return k.store.Delete(ctx, key) })
}

// DeleteAt removes what was written before an instant, see Now, and nothing
// newer: a delete that could not be made then.
func (k *KV) DeleteAt(ctx context.Context, key string, at int64) error {
	return k.breaker.guard(func() error { return k.store.DeleteAt(ctx, key, at) })
}

// Mark makes key a counter's for ttl. It says [ErrWrongKind] where the key holds
// a value.
func (k *KV) Mark(ctx context.Context, key string, ttl time.Duration) error {
	return k.breaker.guard(func() error { return k.store.Mark(ctx, key, ttl) })
}

// Unmark undoes Mark.
func (k *KV) Unmark(ctx context.Context, key string) error {
	return k.breaker.guard(func() error { return k.store.Unmark(ctx, key) })
}

// Keys returns the keys with that prefix that hold a value, on any member.
func (k *KV) Keys(ctx context.Context, prefix string) (keys []string, err error) {
	err = k.breaker.guard(func() (err error) {
		keys, err = k.store.Keys(ctx, prefix)
		return err
	})
	return keys, err
}

// Count counts the keys with that prefix that hold a value, on any member.
func (k *KV) Count(ctx context.Context, prefix string) (n int, err error) {
	err = k.breaker.guard(func() (err error) {
		n, err = k.store.Count(ctx, prefix)
		return err
	})
	return n, err
}

// Now is the clock that versions are instants on: nanoseconds since 1970 of the
// fastest clock among the members.
func (k *KV) Now() int64 { return k.store.Now() }

// Healthy tells whether the store answers and the breaker is not open.
func (k *KV) Healthy() bool { return k.BreakerState() != "open" && k.store.Healthy() }

// Stats reports on this member's part of the store.
func (k *KV) Stats() KVStats { return k.store.Stats() }

// BreakerState returns closed, half-open or open.
func (k *KV) BreakerState() string { return k.breaker.state().String() }

// BreakerStats counts what the breaker did.
func (k *KV) BreakerStats() KVBreakerStats { return k.breaker.stats() }

// ResetBreaker closes the breaker at once.
func (k *KV) ResetBreaker() { k.breaker.reset() }

// setSecrets replaces the secrets that its gossip is encrypted with.
func (k *KV) setSecrets(secrets [][]byte) error {
	if k.own == nil {
		return nil
	}
	return k.own.SetSecrets(secrets)
}

// leave hands over what this member holds.
func (k *KV) leave(ctx context.Context) error {
	if k.own == nil {
		return nil
	}
	return k.own.Leave(ctx)
}

// close stops it. It may be called twice.
func (k *KV) close() error {
	if k.own == nil {
		return nil
	}
	return k.own.Close()
}

// kill stops it as a crash would.
func (k *KV) kill() error {
	if k.own == nil {
		return nil
	}
	return k.own.Kill()
}

// listenKV opens the port of the KV's gossip, before the membership tells others
// of it (Meta.KVGossip is its Addr).
func listenKV(bind string, host netip.Addr) (*kv.Gossip, error) {
	g, err := kv.Listen(bind, host.String())
	if err != nil {
		return nil, fmt.Errorf("cluster: listen for the key-value store: %w", err)
	}
	return g, nil
}

// kvService is the name of the KV's byte streams on the peer port.
const kvService = "kv"

// kvWiring is what a member's KV needs of it.
type kvWiring struct {
	clusterName string
	secrets     [][]byte
	boot        uint64
	gossip      *kv.Gossip
	transport   *peer.Transport
	peers       func() []kv.Peer // the other live members
	logger      *slog.Logger
}

// openKV starts this member's part of the KV; see startKV. The others are those
// in its list that have a KV.
func (n *Node) openKV(gossip *kv.Gossip) (*KV, error) {
	return startKV(kvWiring{
		clusterName: n.cfg.ClusterName,
		secrets:     n.cfg.Secrets,
		boot:        n.boot,
		gossip:      gossip,
		transport:   n.peers,
		peers: func() []kv.Peer {
			var others []kv.Peer
			for _, m := range n.members.Members() {
				if m.Boot != n.boot && m.KVGossip != "" {
					others = append(others, kv.Peer{Boot: m.Boot, Gossip: m.KVGossip})
				}
			}
			return others
		},
		logger: n.log,
	})
}

// startKV starts this member's part of the KV, once it has a list of members. It
// returns at once; the KV becomes available when olric serves. Whoever calls it
// calls leave when the member drains, before it says goodbye, and close before
// the transport is closed.
func startKV(w kvWiring) (*KV, error) {
	k := NewKV(nil, w.logger)
	own, err := kv.Start(kv.Config{
		ClusterName: w.clusterName,
		Secrets:     w.secrets,
		Gossip:      w.gossip,
		Boot:        w.boot,
		Peers:       w.peers,
		DialStream: func(ctx context.Context, boot uint64) (net.Conn, error) {
			return w.transport.DialStream(ctx, peer.Boot(boot), kvService)
		},
		Call: func(ctx context.Context, boot uint64, kind kv.CallKind, request []byte) ([]byte, error) {
			answer, err := w.transport.Call(ctx, peer.Boot(boot), string(kind), request)
			for _, notRun := range []error{peer.ErrUnknownKind, peer.ErrBusy, peer.ErrQueueFull} {
				if errors.Is(err, notRun) {
					return nil, nil
				}
			}
			return answer, err
		},
		Logger: w.logger,
		// What failed while it was not there says nothing about it now.
		Available: k.ResetBreaker,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cluster: %w", err), w.gossip.Close())
	}
	k.store, k.own = own, own
	w.transport.HandleStream(kvService, own.ServeStream)
	for _, kind := range []kv.CallKind{kv.CallOwner, kv.CallBackup} {
		w.transport.Handle(string(kind), func(_ context.Context, _ peer.Boot, request []byte) ([]byte, error) {
			return own.ServeCall(request)
		})
	}
	return k, nil
}
