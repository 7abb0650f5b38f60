package memnet

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// window is how many bytes may be under way before the writer waits.
const window = 256 << 10

// conn is one end of a connection; all its fields are guarded by Network.mu.
type conn struct {
	n             *Network
	host          string
	local, remote addr
	other         *conn
	in            inbox
	closed        bool
	read, write   deadline
}

// inbox is what has been sent to an end and not yet read there.
type inbox struct {
	chunks []chunk
	size   int
	ended  bool // the other end closed: nothing follows
	endAt  time.Time
	reset  bool
}

type chunk struct {
	b  []byte
	at time.Time // when it arrives
}

// deadline wakes waiters when it passes.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(n *Network, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if !t.IsZero() {
		d.timer = n.wakeAt(t)
	}
	n.changed.Broadcast()
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (n *Network) wakeAt(t time.Time) *time.Timer {
	return time.AfterFunc(time.Until(t), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changed.Broadcast()
	})
}

func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "memory", Source: c.local, Addr: c.remote, Err: err}
}

func (c *conn) Read(p []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.fail("read", net.ErrClosed)
		case c.in.reset:
			return 0, c.fail("read", syscall.ECONNRESET)
		case c.read.passed():
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		}
		next, ended := c.in.endAt, c.in.ended
		if len(c.in.chunks) > 0 {
			next, ended = c.in.chunks[0].at, false
		}
		cut := c.n.cut[[2]string{c.other.host, c.host}]
		if !cut && !time.Now().Before(next) {
			if ended {
				return 0, io.EOF
			}
			if len(c.in.chunks) > 0 {
				return c.takeLocked(p), nil
			}
		}
		if !cut && (ended || len(c.in.chunks) > 0) {
			timer := c.n.wakeAt(next)
			c.n.changed.Wait()
			timer.Stop()
		} else {
			c.n.changed.Wait()
		}
	}
}

// takeLocked reads what has arrived.
func (c *conn) takeLocked(p []byte) (n int) {
	now := time.Now()
	for n < len(p) && len(c.in.chunks) > 0 && !now.Before(c.in.chunks[0].at) {
		first := &c.in.chunks[0]
		k := copy(p[n:], first.b)
		n += k
		if first.b = first.b[k:]; len(first.b) == 0 {
			c.in.chunks = c.in.chunks[1:]
		}
	}
	c.in.size -= n
	c.n.changed.Broadcast()
	return n
}

func (c *conn) Write(p []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for done := 0; ; {
		switch {
		case c.closed:
			return done, c.fail("write", net.ErrClosed)
		case c.in.reset || c.other.closed:
			return done, c.fail("write", syscall.ECONNRESET)
		case c.write.passed():
			return done, c.fail("write", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return done, nil
		}
		if room := window - c.other.in.size; room > 0 {
			k := min(room, len(p))
			c.other.in.chunks = append(c.other.in.chunks, chunk{append([]byte(nil), p[:k]...), time.Now().Add(c.n.delay)})
			c.other.in.size += k
			done, p = done+k, p[k:]
			c.n.changed.Broadcast()
			continue
		}
		c.n.changed.Wait()
	}
}

func (c *conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return c.fail("close", net.ErrClosed)
	}
	c.closeLocked()
	c.n.changed.Broadcast()
	return nil
}

func (c *conn) closeLocked() {
	c.closed = true
	c.other.in.ended, c.other.in.endAt = true, time.Now().Add(c.n.delay)
	delete(c.n.conns, c)
	c.read.set(c.n, time.Time{})
	c.write.set(c.n, time.Time{})
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if !c.closed {
		c.read.set(c.n, t)
	}
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if !c.closed {
		c.write.set(c.n, t)
	}
	return nil
}
