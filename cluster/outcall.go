package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/possess"
)

// outcall is an operation of this member's own, from its caller's side, that
// could not simply be run here. It is answered through events; several may
// come where it was sent more than once.
type outcall struct {
	id       uint64
	slot     uint16
	route    possess.Route
	deadline int64
	events   chan outevent // capacity for all that can be on their way
	wire     []byte        // the operation as it is sent

	mu     sync.Mutex // guards what the sweeper looks at
	due    int64      // when the target counts as silent; 0: it is not waited for
	target possess.ID
}

type outevent struct {
	kind  eventKind
	from  possess.ID // for lost and silent: the target
	to    possess.ID // for moved
	epoch uint64
	n     int // length of the result, for answered …
	short [40]byte
	long  []byte // … which is here if it does not fit there
}

// result returns the encoded result of an answered operation.
func (ev *outevent) result() []byte {
	if ev.long != nil {
		return ev.long
	}
	return ev.short[:ev.n]
}

func (ev *outevent) setResult(b []byte) {
	ev.n = copy(ev.short[:], b)
	if ev.n < len(b) {
		ev.long = append([]byte(nil), b...)
	}
}

type eventKind byte

const (
	evAnswered eventKind = iota
	evMoved
	evLost      // the link to the target was lost
	evUnsent    // it could not be sent to the target
	evSilent    // the target has not answered for 100 ms
	evExpired   // the time is up
	evAgain     // something has changed here: try again
	evRefused   // the target refuses: too few members
	evBusy      // the target has too much waiting
	evBad       // the target can't read the operation
	evParked    // the target has it and waits
	evElsewhere // the target does not know who holds the slot
	evAcked     // the backup has it
	evUnacked   // it can't be acknowledged any more
)

// outcalls are the operations that wait for an answer, by ID.
type outcalls struct {
	time   int64 // of a call
	n      atomic.Int64
	shards [64]outshard
}

type outshard struct {
	mu    sync.Mutex
	calls map[uint64]*outcall
	_     [40]byte
}

// maxOutcalls bounds the operations of this member that wait.
const maxOutcalls = 1 << 16

func (cs *outcalls) init(time int64) {
	cs.time = time
	for i := range cs.shards {
		cs.shards[i].calls = map[uint64]*outcall{}
	}
}

func (cs *outcalls) shard(id uint64) *outshard { return &cs.shards[id%uint64(len(cs.shards))] }

var outcallPool = sync.Pool{New: func() any { return &outcall{events: make(chan outevent, 8)} }}

// begin registers an operation.
func (cs *outcalls) begin(ctx context.Context, id uint64, slot uint16, now int64) (*outcall, error) {
	if cs.n.Add(1) > maxOutcalls {
		cs.n.Add(-1)
		return nil, ErrBusy
	}
	c := outcallPool.Get().(*outcall)
	c.id, c.slot, c.deadline = id, slot, now+cs.time
	c.due, c.target = 0, 0
	if t, ok := ctx.Deadline(); ok {
		c.deadline = min(c.deadline, now+int64(time.Until(t)))
	}
	sh := cs.shard(id)
	sh.mu.Lock()
	sh.calls[id] = c
	sh.mu.Unlock()
	return c, nil
}

// end forgets it; what still comes for it finds nobody.
func (cs *outcalls) end(c *outcall) {
	sh := cs.shard(c.id)
	sh.mu.Lock()
	delete(sh.calls, c.id)
	sh.mu.Unlock()
	cs.n.Add(-1)
	for {
		select {
		case <-c.events:
			continue
		default:
		}
		break
	}
	outcallPool.Put(c)
}

// deliver gives an event to the operation of that ID, if it still waits.
func (cs *outcalls) deliver(id uint64, ev outevent) {
	sh := cs.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if c := sh.calls[id]; c != nil {
		c.give(ev)
	}
}

// give never waits: an operation that has 8 events before it knows enough.
func (c *outcall) give(ev outevent) {
	select {
	case c.events <- ev:
	default:
	}
}

// watch says whom the operation was sent to and when that counts as silence.
func (c *outcall) watch(target possess.ID, due int64) {
	c.mu.Lock()
	c.target, c.due = target, due
	c.mu.Unlock()
}

// sweep tells operations whose target is silent or whose time is up.
func (cs *outcalls) sweep(now int64) {
	cs.each(func(c *outcall) {
		c.mu.Lock()
		due, target := c.due, c.target
		if due != 0 && now >= due {
			c.due = 0
		}
		c.mu.Unlock()
		switch {
		case now >= c.deadline:
			c.give(outevent{kind: evExpired})
		case due != 0 && now >= due:
			c.give(outevent{kind: evSilent, from: target})
		}
	})
}

// lost tells the operations that wait for a member that its link is lost.
func (cs *outcalls) lost(id possess.ID) {
	cs.each(func(c *outcall) {
		c.mu.Lock()
		hit := c.target == id && c.due != 0
		if hit {
			c.due = 0
		}
		c.mu.Unlock()
		if hit {
			c.give(outevent{kind: evLost, from: id})
		}
	})
}

// close ends all.
func (cs *outcalls) close() {
	cs.each(func(c *outcall) { c.give(outevent{kind: evExpired}) })
}

func (cs *outcalls) each(f func(*outcall)) {
	for i := range cs.shards {
		sh := &cs.shards[i]
		sh.mu.Lock()
		for _, c := range sh.calls {
			f(c)
		}
		sh.mu.Unlock()
	}
}

// wait returns the next event, or ctx's error.
func (c *outcall) wait(ctx context.Context) (outevent, error) {
	if ctx.Done() == nil {
		return <-c.events, nil
	}
	select {
	case ev := <-c.events:
		return ev, nil
	case <-ctx.Done():
		return outevent{}, ctx.Err()
	}
}

// pause waits for d, unless an event comes first.
func (c *outcall) pause(ctx context.Context, d time.Duration) (outevent, bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case ev := <-c.events:
		return ev, true
	case <-t.C:
	case <-ctx.Done():
	}
	return outevent{}, false
}

// request is an operation as it travels to its holder.
type request struct {
	table uint64
	tried uint64 // a member that could not be reached or was silent
	again bool   // an earlier sending of it may have run
	key   []byte
	op    []byte

	id, hash uint64
	from     replyTo
	arrived  int64
	parked   bool // has been, before
}

// appendRequest appends an operation's frame; r.op may be left out and be
// appended after it.
func appendRequest(b []byte, r *request) []byte {
	b = binary.BigEndian.AppendUint64(b, r.table)
	b = binary.BigEndian.AppendUint64(b, r.tried)
	var again byte
	if r.again {
		again = 1
	}
	b = append(b, again)
	b = binary.AppendUvarint(b, uint64(len(r.key)))
	b = append(b, r.key...)
	return append(b, r.op...)
}

var errRequest = errors.New("cluster: malformed operation")

// parseRequest reads an operation; it shares b's memory.
func parseRequest(b []byte) (r request, err error) {
	if len(b) < 18 {
		return r, errRequest
	}
	r.table, r.tried = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	if b[16] > 1 {
		return r, errRequest
	}
	r.again = b[16] == 1
	n, w := binary.Uvarint(b[17:])
	if w <= 0 || n == 0 || n > MaxKey || n > uint64(len(b)-17-w) {
		return r, errRequest
	}
	b = b[17+w:]
	r.key, r.op = b[:n], b[n:]
	return r, nil
}
