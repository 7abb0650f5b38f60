package peer

import (
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// While a reader works through the frames of one read, answers wait for one another so that they leave in one
	// write, but no longer than this many bytes.
	corkedMost = 16 << 10
	// Write buffers that grew beyond this are let go once they are empty.
	keepBuffer = 64 << 10
	// What waits to be written when the transport closes is given this long.
	flushFor = 200 * time.Millisecond
)

var errConnClosed = errors.New("connection closed")

// conn is one connection of a lane, hello done. Senders append to what is pending; its one writer swaps that for an
// empty buffer and writes it whole, so that what came while a write was under way leaves together in the next one.
type conn struct {
	t        *Transport
	link     *link
	nc       net.Conn
	version  uint8 // agreed
	accepted bool  // the other side dialed

	mu       sync.Mutex // guards what follows, to the blank line
	pending  []byte     // frames waiting to be written
	frames   int        // how many
	urgent   []byte     // pings and pongs, written first
	awake    bool       // the writer is at work or has been woken
	corked   bool       // the reader is about to add more
	closing  bool       // write what is pending, then close
	left     bool       // this side has taken leave, and sends no more by it; see renew.go
	allRead  bool       // the other side has read all before that
	farewell bool       // the other side has taken leave
	closed   bool
	err      error // why closed

	wake    chan struct{} // one token at most, sent by who set awake
	carried bool          // frames were sent by it (guarded by link.mu): its end is a loss

	reads    atomic.Uint64 // by the reader, one a read
	received atomic.Uint64 // by the reader: frames but for pings
	writes   atomic.Uint64 // by the writer, one before and one after each write: odd means under way
	watch    watch         // of the pulse only
}

// push appends a frame. It returns errConnClosed, ErrQueueFull or ErrTooLarge, and then has done nothing.
func (c *conn) push(m *Message) error { return c.add(m, false) }

// add appends a frame; after the last one, nothing more.
func (c *conn) add(m *Message, last bool) error {
	if len(m.Payload) > MaxPayload {
		return ErrTooLarge
	}
	c.mu.Lock()
	if c.closed || c.closing || c.left {
		c.mu.Unlock()
		return errConnClosed
	}
	if len(c.pending)+headerBytes+len(m.Payload) > c.t.cfg.MaxQueue {
		c.mu.Unlock()
		return ErrQueueFull
	}
	h := header{kind: m.Type, version: c.version, slot: m.Slot, id: m.ID, target: c.link.peer.boot, epoch: m.Epoch}
	c.pending = append(h.append(c.pending, len(m.Payload)), m.Payload...)
	c.frames++
	c.left = last
	c.wakeAndUnlock(last || !c.corked || len(c.pending) >= corkedMost)
	return nil
}

// pushUrgent appends a frame without payload that overtakes what is pending.
func (c *conn) pushUrgent(kind byte, id uint64) {
	c.mu.Lock()
	if c.closed || len(c.urgent) >= 8*headerBytes { // who sends pings but reads no pongs gets few
		c.mu.Unlock()
		return
	}
	h := header{kind: kind, version: c.version, id: id, target: c.link.peer.boot}
	c.urgent = h.append(c.urgent, 0)
	c.wakeAndUnlock(true)
}

// wakeAndUnlock unlocks mu and wakes the writer if it sleeps and should not.
func (c *conn) wakeAndUnlock(should bool) {
	wake := should && !c.awake
	c.awake = c.awake || wake
	c.mu.Unlock()
	if wake {
		c.wake <- struct{}{}
	}
}

func (c *conn) cork() {
	c.mu.Lock()
	c.corked = true
	c.mu.Unlock()
}

func (c *conn) uncork() {
	c.mu.Lock()
	c.corked = false
	c.wakeAndUnlock(len(c.pending) > 0)
}

// fail ends the connection at once. Only the first reason counts.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed, c.err = true, err
	c.wakeAndUnlock(true)
	raw := c.nc
	if tc, ok := raw.(*tls.Conn); ok {
		raw = tc.NetConn() // tls.Conn.Close may wait for a write that is stuck
	}
	_ = raw.Close()
}

// finish ends the connection once what is pending is written, or after flushFor.
func (c *conn) finish() {
	_ = c.nc.SetWriteDeadline(time.Now().Add(flushFor))
	c.mu.Lock()
	c.closing = true
	c.wakeAndUnlock(true)
}

func (c *conn) dead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed || c.closing || c.left
}

func (c *conn) queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending)
}

// write is the writer. It returns when the connection has ended.
func (c *conn) write() {
	var empty []byte // takes the place of the buffer being written
	for {
		c.mu.Lock()
		for len(c.pending) == 0 && len(c.urgent) == 0 && !c.closed {
			if c.closing {
				c.mu.Unlock()
				c.fail(ErrClosed)
				return
			}
			c.awake = false
			c.mu.Unlock()
			<-c.wake
			if c.link.lane != LaneControl {
				// Whoever is ready to run may have more to send: 27 frames a write instead of 4 with 64 callers, and
				// twice the rate. Heartbeats don't wait for that.
				runtime.Gosched()
			}
			c.mu.Lock()
		}
		if c.closed {
			c.mu.Unlock()
			return
		}
		batch, frames, urgent := c.pending, c.frames, len(c.urgent)/headerBytes
		if urgent > 0 {
			batch = append(c.urgent, batch...)
			c.urgent = nil
		}
		c.pending, c.frames = empty[:0], 0
		c.mu.Unlock()

		c.writes.Add(1)
		_, err := c.nc.Write(batch)
		c.writes.Add(1)
		if err != nil {
			c.fail(err)
			return
		}
		c.t.counts.sent(frames+urgent, len(batch))
		if empty = batch; cap(empty) > keepBuffer {
			empty = nil
		}
	}
}
