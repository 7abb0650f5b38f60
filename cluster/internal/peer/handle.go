package peer

import (
	"bytes"
	"context"
	"sync"
	"time"
)

// Handler answers calls of one kind. The payload is the handler's to keep. The context ends when the caller gives up or
// the transport closes. An error's text travels to the caller, cut to 1 KiB.
type Handler func(ctx context.Context, from Boot, payload []byte) ([]byte, error)

// Handle sets the handler for a kind of 1 to 64 bytes, or removes it when h is nil. Handlers run on goroutines of their
// own, at most Config.MaxHandlers a kind at once, so that they may wait, and a kind that is stuck does not hold up
// others.
func (t *Transport) Handle(kind string, h Handler) {
	t.services.mu.Lock()
	defer t.services.mu.Unlock()
	if h == nil {
		delete(t.services.byKind, kind)
		return
	}
	if t.services.byKind == nil {
		t.services.byKind = make(map[string]*service)
	}
	t.services.byKind[kind] = &service{t: t, kind: kind, handler: h}
}

// services are the handlers, and the calls they run.
type services struct {
	mu      sync.Mutex
	byKind  map[string]*service
	running map[runKey]context.CancelFunc
}

type runKey struct {
	from Boot
	id   uint64
}

// service runs one kind's calls, a bounded number at once.
type service struct {
	t       *Transport
	kind    string
	handler Handler

	mu      sync.Mutex
	running int
	waiting []request
}

// request is a call to be run here.
type request struct {
	from    Boot
	id      uint64
	payload []byte
	until   time.Time
	via     Via
	local   *call // instead of via, when it is this member's own
}

// serve takes a call in, on the connection's reader: the request waits for its turn elsewhere.
func (t *Transport) serve(c *conn, id uint64, payload []byte) error {
	wait, kind, body, err := parseCall(payload)
	if err != nil {
		return err
	}
	r := request{from: c.link.peer.boot, id: id, until: time.Now().Add(wait), via: Via{c}}
	t.submit(kind, r, body)
	return nil
}

// callSelf runs a call on this member.
func (t *Transport) callSelf(ctx context.Context, k *call, payload []byte) error {
	t.submit(k.kind, request{from: t.cfg.Self, id: k.id, until: time.Now().Add(remaining(ctx)), local: k}, payload)
	return nil
}

func (t *Transport) submit(kind string, r request, body []byte) {
	t.services.mu.Lock()
	s := t.services.byKind[kind]
	t.services.mu.Unlock()
	if s == nil {
		t.answer(r, statusUnknownKind, nil)
		return
	}
	r.payload = bytes.Clone(body)
	s.mu.Lock()
	switch {
	case s.running < t.cfg.MaxHandlers:
		if t.workers.Do(func() { s.work(r) }) {
			s.running++
		}
	case len(s.waiting) < t.cfg.MaxHandlerQueue:
		s.waiting = append(s.waiting, r)
	default:
		s.mu.Unlock()
		t.answer(r, statusBusy, nil)
		return
	}
	s.mu.Unlock()
}

// work runs a request, and then those that wait, until there is none.
func (s *service) work(r request) {
	for {
		s.run(r)
		s.mu.Lock()
		if len(s.waiting) == 0 || s.t.ctx.Err() != nil {
			s.running--
			s.mu.Unlock()
			return
		}
		r = s.waiting[0]
		s.waiting[0] = request{}
		s.waiting = s.waiting[1:]
		s.mu.Unlock()
	}
}

// run runs a request, unless its caller has given up by now.
func (s *service) run(r request) {
	t := s.t
	ctx, cancel := context.WithDeadline(t.ctx, r.until)
	defer cancel()
	if ctx.Err() != nil {
		return
	}
	key := runKey{r.from, r.id}
	t.services.mu.Lock()
	if t.services.running == nil {
		t.services.running = make(map[runKey]context.CancelFunc)
	}
	t.services.running[key] = cancel
	t.services.mu.Unlock()
	answer, err := s.handler(ctx, r.from, r.payload)
	t.services.mu.Lock()
	delete(t.services.running, key)
	t.services.mu.Unlock()
	switch {
	case err != nil:
		text := err.Error()
		t.answer(r, statusError, []byte(text[:min(len(text), maxErrorText)]))
	case len(answer) > MaxCallAnswer:
		t.answer(r, statusTooLarge, nil)
	default:
		t.answer(r, statusOK, answer)
	}
}

// answer sends a request's answer. One that can't be sent is dropped: the caller learns from the loss of its
// connection, or by its deadline.
func (t *Transport) answer(r request, s status, body []byte) {
	if r.local != nil {
		r.local.done <- s.result(r.local.kind, body)
		return
	}
	b := appendReply(make([]byte, 0, 1+len(body)), s, body)
	_ = t.reply(r.via, &Message{Type: typeReply, ID: r.id, Payload: b})
}

// cancelRunning ends the context of a call whose caller gave up.
func (t *Transport) cancelRunning(from Boot, id uint64) {
	t.services.mu.Lock()
	cancel := t.services.running[runKey{from, id}]
	t.services.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}
