package peer

import (
	"errors"
	"fmt"
	"io"
)

// Sizes of a connection's read buffer: it starts small, so that idle connections are cheap, and grows when reads fill it.
const (
	readBufferLeast = 4 << 10
	readBufferMost  = 64 << 10
)

// read is the reader: it hands every frame on, in order, until the connection ends, and then ends it for good.
func (c *conn) read() {
	err := c.readFrames()
	var r *refusal
	switch {
	case errors.As(err, &r) && r.reason == reasonCut: // how a killed member's connection may end
		c.t.rejected.add(r.reason)
	case errors.As(err, &r):
		c.t.reject(c.link.peer.name(), r.reason, err)
	}
	c.fail(err)
	c.t.detach(c)
}

func (c *conn) readFrames() error {
	buf := make([]byte, readBufferLeast)
	r, w := 0, 0 // what is unread lies between
	for {
		n, err := c.nc.Read(buf[w:])
		if n > 0 {
			c.reads.Add(1)
			w += n
			used, need, ferr := c.handOn(buf[r:w], n)
			if ferr != nil {
				return ferr
			}
			r += used
			full := w == len(buf)
			if r == w {
				r, w = 0, 0
			}
			buf, r, w = makeRoom(buf, r, w, need, full)
		}
		if err != nil {
			if errors.Is(err, io.EOF) && w > r {
				return refuse(reasonCut, io.ErrUnexpectedEOF)
			}
			return err
		}
	}
}

// makeRoom returns the buffer to go on with: big enough for a frame of need bytes, bigger when the last read filled it,
// small again after a large frame.
func makeRoom(buf []byte, r, w, need int, full bool) ([]byte, int, int) {
	size := len(buf)
	switch {
	case need > size:
		size = need
	case w == 0 && size > readBufferMost:
		size = readBufferMost
	case full && size < readBufferMost:
		size *= 2
	case w < size && r+need <= size: // the rest of the frame fits behind what is there
		return buf, r, w
	}
	next := buf
	if size != len(buf) {
		next = make([]byte, size)
	}
	return next, 0, copy(next, buf[r:w])
}

// handOn hands on all complete frames of b. used is what they took; need is the size of the frame that is not complete,
// zero if that can't be told.
func (c *conn) handOn(b []byte, read int) (used, need int, err error) {
	frames, corked := 0, false
	for {
		h, payload, size, err := nextFrame(b[used:], MaxFrame)
		if err != nil || size == 0 || len(b)-used < size {
			if corked {
				c.uncork()
			}
			c.t.counts.received(frames, read)
			return used, size, err
		}
		used += size
		frames++
		if !corked && len(b)-used >= headerBytes {
			c.cork()
			corked = true
		}
		if err := c.dispatch(h, payload); err != nil {
			return used, 0, err
		}
	}
}

// dispatch does what one frame asks for.
func (c *conn) dispatch(h header, payload []byte) error {
	if h.version != c.version {
		return refuse(reasonVersion, fmt.Errorf("frame of version %d, agreed on %d", h.version, c.version))
	}
	if h.target != c.t.cfg.Self {
		return refuse(reasonBoot, fmt.Errorf("frame for boot %v", h.target))
	}
	switch h.kind {
	case typePing, typePong:
		if h.kind == typePing {
			c.pushUrgent(typePong, h.id)
		}
		if h.id == leave {
			c.hearLeave(h.kind)
		}
		return nil
	}
	c.received.Add(1)
	switch h.kind {
	case typeCall:
		return c.t.serve(c, h.id, payload)
	case typeReply:
		return c.t.answered(c.link.peer, h.id, payload)
	case typeCancel:
		c.t.cancelRunning(c.link.peer.boot, h.id)
		return nil
	}
	if h.kind < TypeUser || c.t.cfg.Message == nil {
		return refuse(reasonType, fmt.Errorf("frame of type %d", h.kind))
	}
	c.t.cfg.Message(c.link.peer.boot, Message{
		Type: h.kind, ID: h.id, Slot: h.slot, Epoch: h.epoch, Payload: payload, Via: Via{c},
	})
	return nil
}
