package kv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/olric-data/olric"
	"github.com/olric-data/olric/config"
	"github.com/olric-data/olric/pkg/storage"
)

// Leave stops this member's olric and hands what it held to the others, in this
// order: the others are told; those who have not heard of it yet are answered
// from what is held here, all but the writes that are this member's to decide,
// which are made again until their table has it no more; then everything is
// sent to the new owners and their backups. Until [Store.Close], this member's own calls are
// answered by the others. It returns an error where ctx ended first or not
// everything was taken; then some values have one copy only, or none.
func (s *Store) Leave(ctx context.Context) error {
	s.mu.Lock()
	if s.left || s.closed {
		s.mu.Unlock()
		return nil
	}
	s.left = true
	s.mu.Unlock()
	s.watch()
	s.watching.Wait()
	s.setState(stateLeaving)
	defer s.setState(stateLeft)

	in := s.current()
	if in == nil {
		s.caller.Store(nil)
		return nil
	}
	others := slices.DeleteFunc(in.members(), func(name string) bool { return name == in.name })
	if len(others) == 0 {
		s.caller.Store(nil)
		s.instance.Store(nil)
		s.stopInstance(in)
		return nil
	}
	// From here on calls go to the others, who send those for our keys back
	// to us as long as we serve.
	rm, err := s.newRemote(ctx, in, others)
	if err != nil {
		s.caller.Store(&caller{DMap: noDMap{}, last: in.engine})
	} else {
		s.caller.Store(&caller{DMap: rm, last: in.engine})
	}
	s.retireInstance(in)
	ctx, cancel := context.WithTimeout(ctx, keepFor)
	defer cancel()
	if rm == nil {
		rm, err = s.newRemote(ctx, in, others)
	}
	var waited error
	if rm != nil {
		waited = rm.without(ctx, in.name)
	}
	s.instance.Store(nil)
	s.stopInstance(in)
	if rm == nil {
		s.caller.Store(nil)
		return fmt.Errorf("kv: nobody to hand over to: %w", err)
	}
	failed := s.handOver(ctx, rm, in.engine)
	s.caller.Store(&caller{DMap: rm})
	switch {
	case failed > 0:
		return errors.Join(fmt.Errorf("kv: %d of %d entries were not handed over", failed, in.engine.entries()), waited, ctx.Err())
	default:
		return nil
	}
}

// remote is the others' olric, for a member that has none any more.
type remote struct {
	olric.DMap
	client *olric.ClusterClient

	mu     sync.Mutex // guards what follows
	conns  map[*remoteConn]struct{}
	closed bool
}

func remoteOf(c *caller) (*remote, bool) {
	if c == nil {
		return nil, false
	}
	rm, ok := c.DMap.(*remote)
	return rm, ok
}

// newRemote connects to the olric of the others. in is the one that is about to
// stop, to whose server it may be sent as well.
func (s *Store) newRemote(ctx context.Context, in *instance, others []string) (*remote, error) {
	rm := &remote{conns: make(map[*remoteConn]struct{})}
	t := s.timings
	cc := &config.Client{
		Authentication: &config.Authentication{},
		DialTimeout:    t.dial,
		ReadTimeout:    t.read,
		WriteTimeout:   t.read,
		PoolTimeout:    t.read,
		IdleTimeout:    time.Minute,
		PoolSize:       poolSize,
		Dialer: func(ctx context.Context, _, addr string) (net.Conn, error) {
			if addr == in.name {
				return s.dialFor(ctx, in, addr)
			}
			_, conn, err := s.dialOlric(ctx, addr)
			if err == nil {
				conn, err = rm.keep(conn)
			}
			return opaque(conn, err)
		},
	}
	var err error
	for try := 0; try < copyTries && ctx.Err() == nil; try++ {
		rm.client, err = olric.NewClusterClient(others,
			olric.WithConfig(cc),
			olric.WithHasher(hasher{}),
			olric.WithLogger(newOlricLog(s.logger)),
			olric.WithRoutingTableFetchInterval(t.probe/2))
		if err == nil {
			break
		}
	}
	if err = errors.Join(err, ctx.Err()); err != nil {
		rm.close()
		return nil, err
	}
	rm.DMap, err = rm.client.NewDMap(dmapName, olric.StorageEntryImplementation(func() storage.Entry { return &entry{} }))
	if err != nil {
		rm.close()
		return nil, err
	}
	return rm, nil
}

// without waits until no partition is the named olric's any more. The client asks
// one member after the other, and for a while the one that is gone as well.
func (rm *remote) without(ctx context.Context, name string) error {
	for {
		table, err := rm.client.RoutingTable(ctx)
		if err == nil && !slices.ContainsFunc(routes(table), func(r olric.Route) bool {
			return slices.Contains(r.PrimaryOwners, name) || slices.Contains(r.ReplicaOwners, name)
		}) {
			for range 2 { // one of two in a row is not the one that is gone
				if err = rm.client.RefreshMetadata(ctx); err == nil {
					return nil
				}
			}
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

func routes(t olric.RoutingTable) []olric.Route {
	all := make([]olric.Route, 0, len(t))
	for _, r := range t {
		all = append(all, r)
	}
	return all
}

// close closes the connections. It may be called twice.
func (rm *remote) close() {
	rm.mu.Lock()
	open := rm.conns
	rm.conns, rm.closed = nil, true
	rm.mu.Unlock()
	for c := range open {
		_ = c.Conn.Close()
	}
	if rm.client != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = rm.client.Close(ctx)
	}
}

func (rm *remote) keep(c net.Conn) (net.Conn, error) {
	kept := &remoteConn{Conn: c, rm: rm}
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.closed {
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	rm.conns[kept] = struct{}{}
	return kept, nil
}

type remoteConn struct {
	net.Conn
	rm *remote
}

func (c *remoteConn) Close() error {
	c.rm.mu.Lock()
	delete(c.rm.conns, c)
	c.rm.mu.Unlock()
	return c.Conn.Close()
}

// noDMap answers nothing.
type noDMap struct{ olric.DMap }

func (noDMap) Get(context.Context, string) (*olric.GetResponse, error) { return nil, ErrUnavailable }

func (noDMap) Put(context.Context, string, any, ...olric.PutOption) error { return ErrUnavailable }
