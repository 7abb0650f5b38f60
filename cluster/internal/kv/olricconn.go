package kv

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// olricConn is a connection of an instance's olric client to another member's
// olric, or to its own: a stream of bytes, of which it spares what it can.
//
// # Calls
//
// Reads and writes are one command and one answer each. On a stream of its own
// each of them costs both members a write and a read of the system's, and a
// record of TLS. As a [Config.Call] it goes on the connection that members have
// anyway, packed with those of other callers. Large commands, and all that are
// not a read's or a write's, go by the stream.
//
// # Settled owners
//
// An owner that has an entry that is the latest one need not ask the backup, see
// settled.go. There olric's question is answered here, with "not found", which is
// to olric as if there were no other copy.
type olricConn struct {
	net.Conn // the stream
	s        *Store
	in       *instance
	boot     uint64 // of the other member …
	name     string // … and of its olric

	asked    []byte // a command that is called when its answer is read …
	kind     CallKind
	answer   []byte // … and what of that answer was not read yet
	deadline time.Time
	onStream bool // a command of the stream's is being written
	length   int  // what is asked is this one of the other's lengths; -1: something else
}

// CallKind is whom a call may make wait.
type CallKind string

const (
	// CallOwner asks the owner of a key, which may call another member's
	// CallBackup meanwhile.
	CallOwner CallKind = "kv-owner"
	// CallBackup asks the backup of a key, which waits for nobody. It has
	// goroutines of its own, so that owners who wait for each other's backup
	// don't wait for ever.
	CallBackup CallKind = "kv-backup"
)

// maxCall is the longest command, and the longest answer, of a call in bytes:
// limits are decided by frames of the same connection.
const maxCall = 8 << 10

const clockLen = 8 // bytes

// SetDeadline implements net.Conn.
func (c *olricConn) SetDeadline(t time.Time) error {
	c.deadline = t
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *olricConn) SetReadDeadline(t time.Time) error {
	c.deadline = t
	return c.Conn.SetReadDeadline(t)
}

// Write implements net.Conn. Olric's client writes a command and then reads its
// answer, and a short command with one Write.
func (c *olricConn) Write(b []byte) (int, error) {
	if !c.onStream && len(c.asked) == 0 {
		if c.name == c.in.name {
			if out, err := c.in.answer(b, nil); err == nil && out != nil {
				c.answer = out
				return len(b), nil
			}
		} else if at, ok := lengthAt(b); ok {
			c.asked, c.length = append(c.asked[:0], b...), at
			return len(b), nil
		} else if kind, ok := callKind(b); ok {
			if kind == CallBackup && c.in.settledTable() != nil && c.in.engine.hasAsOwner(b) {
				c.answer = notFound
				return len(b), nil
			}
			if c.s.cfg.Call != nil {
				c.asked, c.kind, c.length = append(c.asked[:0], b...), kind, -1
				return len(b), nil
			}
		}
	}
	c.onStream = true
	return c.Conn.Write(b)
}

// Read implements net.Conn.
func (c *olricConn) Read(b []byte) (int, error) {
	n, err := c.read(b)
	if err != nil || bytes.HasPrefix(b[:n], doubtful) {
		c.in.silent.Add(1)
	}
	return n, err
}

var doubtful = []byte("-" + respDoubtful)

func (c *olricConn) read(b []byte) (int, error) {
	if len(c.asked) > 0 {
		ask := c.call
		if c.length >= 0 {
			ask = c.askLength
		}
		err := ask()
		c.asked = c.asked[:0]
		if err != nil {
			return 0, err
		}
	}
	if len(c.answer) > 0 {
		n := copy(b, c.answer)
		c.answer = c.answer[n:]
		return n, nil
	}
	c.onStream = false
	return c.Conn.Read(b)
}

// askLength answers olric's question for a length of the other member's, and asks
// it that one alone only where that is needed.
func (c *olricConn) askLength() error {
	answer, known := c.in.lengthFrom(c.name, c.length)
	if !known {
		if err := c.fetchLengths(); err != nil {
			return err
		}
		answer, _ = c.in.lengthFrom(c.name, c.length)
	}
	if answer == nil {
		_, err := c.Conn.Write(c.asked)
		return err
	}
	c.answer = answer
	return nil
}

// call asks the other member, and by the stream where it says so.
func (c *olricConn) call() error {
	wait := c.s.timings.read
	if !c.deadline.IsZero() {
		wait = min(wait, time.Until(c.deadline))
	}
	answer, err := c.s.ask(context.Background(), partOwner{c.name, c.boot}, c.kind, c.asked, wait)
	if err != nil {
		return errors.New(err.Error()) // see opaque
	}
	if answer == nil {
		_, err = c.Conn.Write(c.asked)
		return err
	}
	c.answer = answer
	return nil
}

// ask asks another member's olric by a call. It returns nil where that has to be
// done by a stream. As the hellos of a stream do, request and answer carry the
// sender's clock:
//
//	request: clock (8 bytes), length of the olric's name (1), the name, the command
//	answer:  clock (8), the reply; or nothing
func (s *Store) ask(ctx context.Context, to partOwner, kind CallKind, command []byte, wait time.Duration) ([]byte, error) {
	if s.cfg.Call == nil {
		return nil, nil
	}
	// Given up, and not out of time: that would count against the member, but it
	// is its olric that is slow.
	bounded, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	defer time.AfterFunc(wait, cancel).Stop()
	request := make([]byte, 0, clockLen+1+len(to.name)+len(command))
	request = binary.BigEndian.AppendUint64(request, uint64(s.clock.now()))
	request = append(request, byte(len(to.name)))
	request = append(request, to.name...)
	request = append(request, command...)
	answer, err := s.cfg.Call(bounded, to.boot, kind, request)
	if err != nil || len(answer) == 0 {
		return nil, err
	}
	if len(answer) < clockLen {
		return nil, errRESP
	}
	s.observe(int64(binary.BigEndian.Uint64(answer)))
	return answer[clockLen:], nil
}

// ServeCall answers another member's [Config.Call]. An empty answer asks for the
// same by a stream.
func (s *Store) ServeCall(request []byte) ([]byte, error) {
	if !s.begin() {
		return nil, ErrClosed
	}
	defer s.goroutines.Done()
	clock, name, raw, err := parseCall(request)
	if err != nil {
		return nil, err
	}
	s.observe(clock)
	in := s.current()
	if in == nil || name != in.name {
		return nil, fmt.Errorf("kv: %q: not there", name)
	}
	out, err := in.answer(raw, make([]byte, clockLen, 64))
	if err != nil || out == nil || len(out) > maxCall {
		return nil, err
	}
	binary.BigEndian.PutUint64(out, uint64(s.clock.now()))
	return out, nil
}

// answer appends the answer to the one command that raw is to out. It returns nil
// where that is for olric's server.
func (in *instance) answer(raw, out []byte) ([]byte, error) {
	p := pieces.Get().(*piece)
	defer pieces.Put(p)
	if !p.single(raw) {
		return nil, errRESP
	}
	a := answers{in: in, out: out}
	if !a.answer(&p.c) {
		return nil, nil
	}
	return a.out, nil
}

func parseCall(request []byte) (clock int64, name string, raw []byte, err error) {
	if len(request) < clockLen+1 || len(request) < clockLen+1+int(request[clockLen]) {
		return 0, "", nil, errRESP
	}
	rest := request[clockLen+1:]
	n := request[clockLen]
	return int64(binary.BigEndian.Uint64(request)), string(rest[:n]), rest[n:], nil
}

// piece reads the command that some bytes are.
type piece struct {
	src bytes.Reader
	r   *bufio.Reader
	c   command
}

var pieces = sync.Pool{New: func() any { return &piece{r: bufio.NewReader(nil)} }}

// single reads one command; false: b is not just one. It is valid until the next
// one is read.
func (p *piece) single(b []byte) bool {
	p.src.Reset(b)
	p.r.Reset(&p.src)
	return p.c.read(p.r) == nil && p.r.Buffered() == 0 && p.src.Len() == 0
}

// callKind tells whether b is one command of a read or a write, short enough for
// a call, and whom it asks.
func callKind(b []byte) (CallKind, bool) {
	if len(b) > maxCall {
		return "", false
	}
	p := pieces.Get().(*piece)
	defer pieces.Put(p)
	if !p.single(b) {
		return "", false
	}
	switch string(p.c.args[0]) {
	case "dm.get", "dm.put":
		return CallOwner, true
	case "dm.getentry", "dm.putentry":
		return CallBackup, true
	}
	return "", false
}

// lengthAt tells whether b is olric's question for a length, and for which.
func lengthAt(b []byte) (at int, ok bool) {
	if len(b) > 100 || !bytes.Contains(b, []byte(lengthOfPart)) {
		return 0, false
	}
	p := pieces.Get().(*piece)
	defer pieces.Put(p)
	if !p.single(b) || string(p.c.args[0]) != lengthOfPart {
		return 0, false
	}
	return parseLength(p.c.args[1:])
}

// A read of a backup is one write of these bytes, the digest between them.
var (
	askBackupHead = []byte("*4\r\n$11\r\ndm.getentry\r\n$9\r\n" + dmapName + "\r\n$32\r\n")
	askBackupTail = []byte("\r\n$2\r\nRC\r\n")
	notFound      = []byte("-" + respNotFound + "\r\n")
)

// hasAsOwner tells whether b asks the backup for a key whose entry this member
// has as its owner.
func (g *engine) hasAsOwner(b []byte) bool {
	if len(b) != len(askBackupHead)+32+len(askBackupTail) ||
		!bytes.HasPrefix(b, askBackupHead) || !bytes.HasSuffix(b, askBackupTail) {
		return false
	}
	hkey := hashOfDigest(string(b[len(askBackupHead) : len(askBackupHead)+32]))
	s := g.owned[hkey%partitionCount].Load()
	return s != nil && s.get(hkey) != nil
}
