package main

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
)

// mostConns is how many connections the HTTP API keeps: far more than the
// clients of one member need, and few enough that all of them together take
// some tens of megabytes.
const mostConns = 4096

// conns are the connections of the HTTP API. Where there is one too many, the
// one goes that has waited longest without a request: of those that never had
// one, if there are such, so that a crowd of silent strangers neither keeps
// newcomers out nor costs clients theirs. A connection whose request is being
// answered never goes.
type conns struct {
	most    int
	refused func(reason string)

	mu        sync.Mutex
	known     map[net.Conn]*trackedConn // guarded by mu
	strangers list.List                 // guarded by mu: of *trackedConn that never had a whole request's header, oldest first
	idle      list.List                 // guarded by mu: of *trackedConn between two requests, longest idle first
}

// trackedConn's fields are guarded by the mutex of its conns.
type trackedConn struct {
	conn    net.Conn
	list    *list.List // nil while a request is being answered
	place   *list.Element
	reading bool // something was received that is no whole header yet
}

func newConns(most int, refused func(reason string)) *conns {
	return &conns{most: most, refused: refused, known: map[net.Conn]*trackedConn{}}
}

type connKey struct{}

// context is an http.Server's ConnContext.
func (s *conns) context(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// follow is an http.Server's ConnState.
func (s *conns) follow(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	t := s.known[c]
	var evicted net.Conn
	unreadable := false
	switch {
	case state == http.StateNew:
		t = &trackedConn{conn: c}
		s.known[c] = t
		s.putLocked(t, &s.strangers)
		evicted = s.evictLocked()
	case t == nil: // evicted
	case state == http.StateActive:
		t.reading = true
	case state == http.StateIdle:
		s.putLocked(t, &s.idle)
	default:
		unreadable = t.reading
		s.takeLocked(t)
		delete(s.known, c)
	}
	s.mu.Unlock()
	if evicted != nil {
		s.refused(refusedCrowd)
		_ = evicted.Close()
	}
	if unreadable {
		s.refused(refusedUnreadable)
	}
}

// handler tells conns which of them are being answered.
func (s *conns) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(connKey{}).(net.Conn)
		s.mu.Lock()
		if t := s.known[c]; t != nil {
			s.takeLocked(t)
		}
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			// From here on the server at most waits for a rest of the body.
			if t := s.known[c]; t != nil {
				s.putLocked(t, &s.idle)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// putLocked makes t the last of a list.
func (s *conns) putLocked(t *trackedConn, l *list.List) {
	s.takeLocked(t)
	t.list, t.place = l, l.PushBack(t)
}

// takeLocked takes t out of its list; its request, if any, has been read.
func (s *conns) takeLocked(t *trackedConn) {
	t.reading = false
	if t.list != nil {
		t.list.Remove(t.place)
		t.list, t.place = nil, nil
	}
}

// evictLocked forgets a connection where there is one too many, and returns it
// to be closed. The newcomer is the last of the strangers, and goes when all
// others are being answered.
func (s *conns) evictLocked() net.Conn {
	if len(s.known) <= s.most {
		return nil
	}
	from := &s.strangers
	if from.Len() == 1 && s.idle.Len() > 0 {
		from = &s.idle
	}
	t := from.Front().Value.(*trackedConn)
	s.takeLocked(t)
	delete(s.known, t.conn)
	return t.conn
}

// closeSilent closes the connections on which nothing has been received yet.
// http.Server.Shutdown waits 5 s for them, and clients that dial more
// connections than they use, as Go's do, always leave some.
func (s *conns) closeSilent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.strangers.Front(); e != nil; e = e.Next() {
		if t := e.Value.(*trackedConn); !t.reading {
			_ = t.conn.Close()
		}
	}
}
