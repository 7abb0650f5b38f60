package kv

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/olric-data/olric"
	"github.com/olric-data/olric/config"
)

// olricDB and olricClient are what is used of olric's own types. As interfaces,
// because a package that has a struct with those types compiles anew whatever
// they are made of and has type parameters: 1 to 2 s in each that has a Node.
type olricDB interface{ Shutdown(context.Context) error }

type olricClient interface {
	NewDMap(name string, options ...olric.DMapOption) (olric.DMap, error)
	Members(context.Context) ([]olric.Member, error)
}

// instance is one life of olric on this member. It has a name of its own, so
// that the others never take it for the one before it: a member that comes back
// under its old name makes olric's coordinator wait for it once a partition.
type instance struct {
	name     string // host:port of its server, its name in olric
	password string // of its server, known to this process only
	engine   *engine
	db       olricDB
	client   olricClient
	dmap     olric.DMap
	gossip   *memberlist.NetTransport
	born     time.Time
	up       atomic.Bool   // it has a partition table
	retired  atomic.Bool   // its olric stops, or has stopped; others may still ask
	silent   atomic.Uint64 // how often a member did not answer what its olric asked

	table   atomic.Pointer[ownerTable] // the last that olric has taken, nil: none
	pushes  atomic.Uint64              // how many have come
	tableMu sync.Mutex                 // held while olric gets one

	served chan struct{} // closed when olric's Start has returned
	err    error         // what it returned, valid once served is closed

	mu    sync.Mutex // guards what follows
	conns map[*instanceConn]struct{}
	cut   bool // no connections any more
	// lengths are by the name of a member's olric.
	lengths map[string]lengths
}

// configure makes olric's configuration for a new instance.
func (s *Store) configure(in *instance, host string, port int) (*config.Config, error) {
	logger := newOlricLog(s.logger)
	var err error
	if in.gossip, err = s.cfg.Gossip.take(logger); err != nil {
		return nil, err
	}
	t := s.timings
	var peers []string
	for _, p := range s.cfg.Peers() {
		if p.Boot != s.cfg.Boot && p.Gossip != "" {
			peers = append(peers, p.Gossip)
		}
	}
	client := &config.Client{
		Authentication: &config.Authentication{},
		DialTimeout:    t.dial,
		ReadTimeout:    t.read,
		WriteTimeout:   t.read,
		PoolTimeout:    t.read,
		IdleTimeout:    time.Minute,
		PoolSize:       poolSize,
		Dialer: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return s.dialFor(ctx, in, addr)
		},
	}
	return &config.Config{
		Authentication:           &config.Authentication{Password: in.password},
		Logger:                   logger,
		LogLevel:                 config.LogLevelWarn, // lets WARN, ERROR and INFO through
		LogVerbosity:             2,
		BindAddr:                 host,
		BindPort:                 port,
		Client:                   client,
		BootstrapTimeout:         t.boot,
		RoutingTablePushInterval: t.push,
		TriggerBalancerInterval:  t.balance,
		Peers:                    peers,
		PartitionCount:           partitionCount,
		ReplicaCount:             2,
		ReadQuorum:               1,
		WriteQuorum:              1,
		MemberCountQuorum:        1,
		ReplicationMode:          config.SyncReplicationMode,
		Hasher:                   hasher{},
		JoinRetryInterval:        200 * time.Millisecond,
		MaxJoinAttempts:          3,
		LeaveTimeout:             t.leave,
		MemberlistConfig:         gossipConfig(s.cfg, s.keyring, in.gossip),
		DMaps: &config.DMaps{
			Engine:             &config.Engine{Implementation: &fork{root: in.engine}},
			NumEvictionWorkers: 1,
			// Our engine expires and compacts by itself. Olric's janitor
			// removes an empty partition that a write may just have taken.
			CheckEmptyFragmentsInterval: never,
			TriggerCompactionInterval:   never,
		},
	}, nil
}

const never = 100 * 365 * 24 * time.Hour

// startInstance starts olric and waits until it serves. Where it fails nothing
// is left behind.
func (s *Store) startInstance(ctx context.Context) (*instance, error) {
	host, port, err := freeLoopback(s.cfg.Boot)
	if err != nil {
		return nil, fmt.Errorf("kv: no loopback address: %w", err)
	}
	in := &instance{
		name:     joinHostPort(host, port),
		password: rand.Text() + rand.Text(),
		engine:   newEngine(s.clock, s.cfg.MaxBytes),
		conns:    make(map[*instanceConn]struct{}),
		served:   make(chan struct{}),
		born:     time.Now(),
	}
	oc, err := s.configure(in, host, port)
	if err != nil {
		return nil, err
	}
	db, err := olric.New(oc)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("kv: olric: %w", err), closeTransport(in.gossip))
	}
	// Only now: olric turns -1 into 0 and 0 into 3 each time it looks at it,
	// and would log in with its own password everywhere. Its client reads both
	// when it first dials a member.
	oc.Client.MaxRetries = -1
	oc.Client.Authentication = &config.Authentication{}

	s.goroutines.Go(func() {
		defer close(in.served)
		in.err = db.Start()
	})
	in.db, in.client = db, db.NewEmbeddedClient()
	s.instance.Store(in) // the coordinator must reach its server for it to start
	if err := in.await(ctx, s.timings.start); err != nil {
		s.instance.Store(nil)
		in.kill()
		s.stopInstance(in)
		return nil, err
	}
	return in, nil
}

// afterCancel is how long a start that is no longer wanted may still take: olric
// can't be stopped cleanly in the middle of it, and leaves its server behind.
const afterCancel = 1500 * time.Millisecond

// await waits until olric has got its partition table.
func (in *instance) await(parent context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), limit)
	defer cancel()
	defer context.AfterFunc(parent, func() { time.AfterFunc(afterCancel, cancel) })()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		dm, err := newDMap(in.client)
		if err == nil {
			in.dmap = dm
			in.up.Store(true)
			return nil
		}
		select {
		case <-in.served:
			return fmt.Errorf("kv: olric stopped: %w", errors.Join(err, in.err))
		case <-ctx.Done():
			return fmt.Errorf("kv: olric did not start: %w", errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// newDMap calls olric, which panics where it is asked in the wrong moment.
func newDMap(c olricClient) (dm olric.DMap, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("kv: olric panicked: %v", p)
		}
	}()
	return c.NewDMap(dmapName)
}

// members returns the names of the members that olric knows, oldest first: the
// first is its coordinator. It is empty until olric has started.
func (in *instance) members() []string {
	if !in.up.Load() {
		return nil
	}
	ms, err := in.client.Members(context.Background())
	if err != nil {
		return nil
	}
	names := make([]string, len(ms))
	for i, m := range ms {
		names[i] = m.Name
	}
	return names
}

// kill closes all its connections and lets it open no other, so that whatever
// waits for an answer in it stops waiting.
func (in *instance) kill() {
	in.mu.Lock()
	in.cut = true
	open := in.conns
	in.conns = make(map[*instanceConn]struct{})
	in.mu.Unlock()
	for c := range open {
		_ = c.Conn.Close()
	}
}

// stopInstance stops olric, and closes all its connections. What it holds stays
// in its engine.
func (s *Store) stopInstance(in *instance) {
	s.retireInstance(in)
	in.kill()
	// Olric leaves these open where its start failed early.
	_ = closeTransport(in.gossip)
}

// retireInstance stops olric: it tells the other members, waits for what runs and
// closes its server. Members whose table still has it are answered from what it
// holds.
func (s *Store) retireInstance(in *instance) {
	const patience = 5 * time.Second
	in.retired.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := make(chan struct{})
	s.goroutines.Go(func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				s.logger.Warn("olric panicked while it was stopped", slog.Any("panic", p))
			}
		}()
		if err := in.db.Shutdown(ctx); err != nil {
			s.logger.Debug("olric stopped", slog.Any("error", err))
		}
	})
	select {
	case <-done:
	case <-ctx.Done():
		s.logger.Warn("olric does not stop, its connections are cut")
		in.kill()
	}
	<-done
}

// instanceConn is a connection of an instance's client, or to its server, that
// is closed with it.
type instanceConn struct {
	net.Conn
	in *instance
}

func (in *instance) isCut() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.cut
}

func (in *instance) keep(c net.Conn) (net.Conn, error) {
	kept := &instanceConn{Conn: c, in: in}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.cut {
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	in.conns[kept] = struct{}{}
	return kept, nil
}

func (c *instanceConn) Close() error {
	c.in.mu.Lock()
	delete(c.in.conns, c)
	c.in.mu.Unlock()
	return c.Conn.Close()
}
