package cluster

import (
	"maps"
	"slices"
	"sync"
)

// EventKind says what happened to a member.
type EventKind string

// The kinds of event, as the log has them.
const (
	MemberJoined  EventKind = "member joined"
	MemberUpdated EventKind = "member updated" // it tells something else of itself: it drains now
	MemberLeft    EventKind = "member left"
	MemberLost    EventKind = "member lost"
)

// An Event is a change of another member.
type Event struct {
	Kind   EventKind
	Member Member // as it is after the change
}

// maxEvents bounds what waits for slow watchers. Beyond it the oldest are
// dropped.
const maxEvents = 4096

// events hands events to watchers, in order, on a goroutine of its own, so that
// a slow one delays nothing but other watchers.
type events struct {
	mu       sync.Mutex // guards what follows
	watchers map[int]func(Event)
	next     int
	waiting  []Event
	closed   bool
	wake     chan struct{}

	done chan struct{}
}

func newEvents() *events {
	e := &events{watchers: make(map[int]func(Event)), wake: make(chan struct{}, 1), done: make(chan struct{})}
	go e.run()
	return e
}

func (e *events) watch(f func(Event)) (stop func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := e.next
	e.next++
	e.watchers[id] = f
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.watchers, id)
	}
}

func (e *events) send(ev Event) {
	e.mu.Lock()
	if !e.closed && len(e.watchers) > 0 {
		if len(e.waiting) >= maxEvents {
			e.waiting = e.waiting[1:]
		}
		e.waiting = append(e.waiting, ev)
	}
	e.mu.Unlock()
	e.poke()
}

func (e *events) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run hands out what waits, until close.
func (e *events) run() {
	defer close(e.done)
	for range e.wake {
		for {
			e.mu.Lock()
			if e.closed {
				e.mu.Unlock()
				return
			}
			if len(e.waiting) == 0 {
				e.mu.Unlock()
				break
			}
			ev := e.waiting[0]
			e.waiting = e.waiting[1:]
			watchers := make([]func(Event), 0, len(e.watchers))
			for _, id := range slices.Sorted(maps.Keys(e.watchers)) {
				watchers = append(watchers, e.watchers[id])
			}
			e.mu.Unlock()
			for _, f := range watchers {
				f(ev)
			}
		}
	}
}

// close drops what waits and returns when no watcher runs.
func (e *events) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.poke()
	<-e.done
}
