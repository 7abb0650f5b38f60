package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// peerlimit is this process as a member, which is how it is embedded, and two
// more processes.
type peerlimit struct {
	title      string
	remoteOnly bool // only keys that another process holds

	node   *cluster.Node
	limits *ratelimit.Limiter
	others []*child
}

var policy = ratelimit.PerMinute("bench", limit)

func (p *peerlimit) name() string    { return p.title }
func (p *peerlimit) missing() string { return "" }

func (p *peerlimit) start(ctx context.Context, _ int) (err error) {
	name := clusterName()
	if p.node, p.limits, err = startNode(ctx, name, "bench-1", nil); err != nil {
		return err
	}
	for i := range 2 {
		other, err := startChild(ctx, name, fmt.Sprintf("bench-%d", i+2), p.node.Self().Gossip)
		if err != nil {
			return err
		}
		p.others = append(p.others, other)
	}
	for {
		if members := p.node.Status().Members; len(members) == 3 && settled(members) {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settled reports whether each member has its share of the slots.
func settled(members []cluster.MemberStatus) bool {
	return !slices.ContainsFunc(members, func(m cluster.MemberStatus) bool {
		return m.State != cluster.StateAlive || m.OwnedSlots == 0
	})
}

// keys leaves out, where only remote ones are wanted, those that this process
// holds: their decisions take less than a switch to another process can.
func (p *peerlimit) keys(ctx context.Context, n int) (keys []string, err error) {
	if !p.remoteOnly {
		return allKeys(n), nil
	}
	const fastest = 4 * time.Microsecond
	for i := 0; len(keys) < n && i < 10*n; i++ {
		key, best := keyName(i), time.Hour
		for range 5 {
			start := time.Now()
			if err := p.decide(ctx, key); err != nil {
				return nil, err
			}
			best = min(best, time.Since(start))
		}
		if best > fastest {
			keys = append(keys, key)
		}
	}
	if len(keys) < n {
		return nil, fmt.Errorf("only %d of %d keys are held by others", len(keys), 10*n)
	}
	return keys, nil
}

func (p *peerlimit) decide(ctx context.Context, key string) error {
	d, err := p.limits.Allow(ctx, policy, key)
	switch {
	case err != nil:
		return err
	case d.Degraded:
		return fmt.Errorf("degraded: %s", d.Reason)
	case !d.Allowed:
		return errors.New("denied")
	}
	return nil
}

// close ends all members at once. What they counted is of no use to anybody, so
// that nobody took it over is no failure.
func (p *peerlimit) close() error {
	for _, other := range p.others {
		other.kill()
	}
	p.others = nil
	var err error
	if p.limits != nil {
		err = p.limits.Close()
	}
	if p.node != nil {
		_ = p.node.Close()
	}
	return err
}

func startNode(ctx context.Context, name, id string, join []string) (*cluster.Node, *ratelimit.Limiter, error) {
	node, err := cluster.Start(ctx, cluster.Config{
		ClusterName: name, NodeID: id, Join: join,
		Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0", KVBind: "127.0.0.1:0",
		DrainTimeout: 100 * time.Millisecond, // there is nothing worth handing over
	})
	if err != nil {
		return nil, nil, err
	}
	limits, err := ratelimit.New(ratelimit.Config{Cluster: node, Namespace: "bench"})
	if err != nil {
		return nil, nil, errors.Join(err, node.Close())
	}
	if err := node.AwaitReady(ctx); err != nil {
		return nil, nil, errors.Join(err, node.Close())
	}
	return node, limits, nil
}
