package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/cache"
	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// settings of a member.
type settings struct {
	Cluster, ID string
	Join        []string
	Secret      string // hexadecimal; empty: members talk in the clear
}

// member is one process as a member of a cluster, with all that is measured.
type member struct {
	node   *cluster.Node
	limits *ratelimit.Limiter
	where  *whereTable
	keys   *auth.Authenticator
	values *cacheOfBytes
	hasty  bool // it measures values at once
}

type cacheOfBytes = cache.Cache[[]byte]

func startMember(ctx context.Context, s settings) (_ *member, err error) {
	secret, err := hex.DecodeString(s.Secret)
	if err != nil {
		return nil, err
	}
	m := &member{}
	m.node, err = cluster.Start(ctx, cluster.Config{
		ClusterName: s.Cluster, NodeID: s.ID, Join: s.Join, Secret: secret,
		Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0", KVBind: "127.0.0.1:0",
		DrainTimeout: 100 * time.Millisecond, // there is nothing worth handing over
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	if m.limits, err = ratelimit.New(ratelimit.Config{Cluster: m.node, Namespace: "bench"}); err != nil {
		return nil, err
	}
	if m.where, err = newWhereTable(m.node); err != nil {
		return nil, err
	}
	if m.keys, err = auth.New(auth.Config{Cluster: m.node, Store: auth.NewMemory()}); err != nil {
		return nil, err
	}
	if m.values, err = cache.New[[]byte](cache.Config{Cluster: m.node}); err != nil {
		return nil, err
	}
	return m, m.node.AwaitReady(ctx)
}

// close ends a member; nil is none. That it had no time to hand over is no error.
func (m *member) close() error {
	if m == nil {
		return nil
	}
	var err error
	if m.values != nil {
		err = errors.Join(err, m.values.Close())
	}
	if m.keys != nil {
		err = errors.Join(err, m.keys.Close())
	}
	if m.where != nil {
		err = errors.Join(err, m.where.Close())
	}
	if m.limits != nil {
		err = errors.Join(err, m.limits.Close())
	}
	_ = m.node.Close()
	return err
}

// asker returns a decision by this member.
func (m *member) asker(r rule) ask {
	policy := ratelimit.Policy{Name: r.Name, Limit: r.Limit, Period: r.Period}
	return func(ctx context.Context, key string) (bool, error) {
		d, err := m.limits.Allow(ctx, policy, key)
		if err == nil && d.Degraded {
			err = fmt.Errorf("degraded: %s", d.Reason)
		}
		return d.Allowed, err
	}
}

// order is what a member is told to do.
type order struct {
	Do    string
	Rule  rule
	Key   string
	Calls int           // of doSpend, in all
	For   time.Duration // of doLoad
}

// What can be ordered.
const (
	doStats = "stats"
	doSpend = "spend" // a number of calls for one key
	doLoad  = "load"  // calls for one key, for a time
	doTaken = "taken" // nothing: how many slots were taken over is the answer
)

// counted is the answer to an order that asks.
type counted struct{ Calls, Admitted, Failed int64 }

// memberStats are a member's figures.
type memberStats struct {
	Status       cluster.Status
	Keys, Copies int // of the limiter
}

// Settled tells whether a member sees that many and has its share.
func (s *memberStats) Settled(members int) bool { return settledOn(s.Status, members) }

func (m *member) takeOvers() uint64 { return m.node.Status().Possession.TakeOvers }

func (m *member) stats() memberStats {
	limits := m.limits.Stats()
	return memberStats{Status: m.node.Status(), Keys: limits.Keys, Copies: limits.Copies}
}

// runMember is a member until its input, a pipe from the measuring process, ends.
func runMember(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	var m *member
	defer func() { err = errors.Join(err, m.close()) }()
	return serveLines(bufio.NewScanner(in), out, func(line []byte) (any, error) {
		if m == nil {
			var s settings
			if err := json.Unmarshal(line, &s); err != nil {
				return nil, err
			}
			m, err = startMember(ctx, s)
			return "ready", err
		}
		var o order
		if err := json.Unmarshal(line, &o); err != nil {
			return nil, err
		}
		switch o.Do {
		case doStats:
			return m.stats(), nil
		case doTaken:
			return m.takeOvers(), nil
		case doSpend:
			return m.spend(ctx, o)
		case doLoad:
			return m.load(ctx, o)
		}
		return nil, fmt.Errorf("order %q is not known", o.Do)
	})
}

func (m *member) spend(ctx context.Context, o order) (counted, error) {
	n, err := spendThrough(ctx, []ask{m.asker(o.Rule)}, o.Key, o.Calls)
	return counted{Calls: int64(o.Calls), Admitted: n}, err
}

func (m *member) load(ctx context.Context, o order) (counted, error) {
	var (
		wait sync.WaitGroup
		sum  struct{ calls, admitted, failed atomic.Int64 }
		one  = m.asker(o.Rule)
		end  = time.Now().Add(o.For)
	)
	for range spendCallers {
		wait.Go(func() {
			var calls, admitted int64
			for calls%callsInTurn != 0 || time.Now().Before(end) {
				if calls%callsInTurn == callsInTurn-1 {
					runtime.Gosched()
				}
				allowed, err := one(ctx, o.Key)
				calls++
				if err != nil {
					sum.failed.Add(1)
				} else if allowed {
					admitted++
				}
			}
			sum.calls.Add(calls)
			sum.admitted.Add(admitted)
		})
	}
	wait.Wait()
	return counted{sum.calls.Load(), sum.admitted.Load(), sum.failed.Load()}, nil
}
