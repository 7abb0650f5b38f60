package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// leaveTimeout is how long a member that closes waits for the others to note
// its goodbye.
const leaveTimeout = time.Second

// Drain tells the others that this member leaves and hands over what it holds.
// After that calls still answer, through the other members, until Close. It
// returns nil when all is handed over; else ctx's error, and may be called
// again to go on.
func (n *Node) Drain(ctx context.Context) error {
	n.draining.Store(true)
	select {
	case n.drainTurn <- struct{}{}:
		defer func() { <-n.drainTurn }()
	case <-ctx.Done():
		return fmt.Errorf("cluster: drain: %w", ctx.Err())
	}
	if n.handedOff.Load() {
		return nil
	}
	if n.life.Err() != nil {
		return ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.life, cancel)()
	if err := n.handOver(ctx); err != nil {
		return fmt.Errorf("cluster: drain: %w", err)
	}
	n.handedOff.Store(true)
	return nil
}

func (n *Node) handOver(ctx context.Context) error {
	n.log.Info("draining", "node", n.cfg.NodeID, "boot", bootText(n.boot))
	if err := n.members.SetDraining(ctx); err != nil {
		return err
	}
	n.regroup()
	// Cached values go while slots go; neither waits for the other.
	values := make(chan error, 1)
	go func() { values <- n.kv.leave(ctx) }()
	err := n.possession.drain(ctx)
	if e := <-values; e != nil {
		// What is cached can be loaded again: no reason to stay.
		n.log.Warn("cached values were not all handed over", "error", e)
	}
	return err
}

// Close drains, for Config.DrainTimeout at most, says goodbye and stops. It may
// be called twice, and by several at a time: all wait, and get the same error,
// which says what was not handed over. It must not be called from a handler or
// a watcher.
func (n *Node) Close() error {
	n.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), n.cfg.DrainTimeout)
		defer cancel()
		n.endErr = errors.Join(n.Drain(ctx), n.members.Leave(leaveTimeout), n.stop((*KV).close))
		n.log.Info("closed", "node", n.cfg.NodeID, "boot", bootText(n.boot))
	})
	return n.endErr
}

// kill stops without a goodbye, as a crash would.
func (n *Node) kill() error {
	n.once.Do(func() { n.endErr = n.stop((*KV).kill) })
	return n.endErr
}

func (n *Node) stop(endKV func(*KV) error) error {
	n.end()
	n.possession.close()
	var err error
	if n.kv != nil {
		err = endKV(n.kv)
	}
	err = errors.Join(err, n.members.Shutdown(), n.peers.Close())
	n.wg.Wait()
	n.events.close()
	return err
}
