package kv

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// A stream between members begins with a hello from each side; both carry the
// sender's clock. Then it is either a connection to the other's olric, or the
// answer to a question.
//
//	hello:  "PLK1", ask (1 byte), clock (8), length of the name (2), the name
//	answer: "PLK1", status (1 byte), clock (8)
const helloMagic = "PLK1"

// ask is what a stream is for.
type ask byte

const (
	askOlric  ask = 1 // be connected to the olric of that name
	askStatus ask = 2 // which olric do you run, and who are its members?
	askKeys   ask = 3 // the keys with that prefix that you hold
	askCount  ask = 4 // the hashes of those keys
)

const (
	statusOK     = 0
	statusGone   = 1 // no olric of that name here
	statusNoKV   = 2 // none at all, for now
	maxHelloName = MaxKey
)

var errHello = errors.New("kv: malformed hello")

func writeHello(c net.Conn, a ask, clock int64, name string) error {
	b := append([]byte(helloMagic), byte(a))
	b = binary.BigEndian.AppendUint64(b, uint64(clock))
	b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
	b = append(b, name...)
	_, err := c.Write(b)
	return err
}

func readHello(r io.Reader) (a ask, clock int64, name string, err error) {
	var h [15]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, 0, "", err
	}
	n := int(binary.BigEndian.Uint16(h[13:]))
	if string(h[:4]) != helloMagic || n > maxHelloName {
		return 0, 0, "", errHello
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, 0, "", err
	}
	return ask(h[4]), int64(binary.BigEndian.Uint64(h[5:])), string(b), nil
}

func writeAnswer(w io.Writer, status byte, clock int64) error {
	b := append([]byte(helloMagic), status)
	b = binary.BigEndian.AppendUint64(b, uint64(clock))
	_, err := w.Write(b)
	return err
}

func readAnswer(r io.Reader) (status byte, clock int64, err error) {
	var b [13]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, 0, err
	}
	if string(b[:4]) != helloMagic {
		return 0, 0, errHello
	}
	return b[4], int64(binary.BigEndian.Uint64(b[5:])), nil
}

// openStream dials a member and says hello. On success the connection has no
// deadline.
func (s *Store) openStream(ctx context.Context, boot uint64, a ask, name string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timings.dial)
	defer cancel()
	conn, err := s.cfg.DialStream(ctx, boot)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	err = func() error {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
		if err := writeHello(conn, a, s.clock.now(), name); err != nil {
			return err
		}
		status, clock, err := readAnswer(conn)
		if err != nil {
			return err
		}
		s.observe(clock)
		if status != statusOK {
			return fmt.Errorf("kv: %s: not there (%d)", name, status)
		}
		return conn.SetDeadline(time.Time{})
	}()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// opaque hides what an error is from olric. Its client takes any error that is
// ECONNREFUSED for a *net.OpError, on a goroutine of its own, and panics where it
// is wrapped (cluster_client.go, processProtocolError): the process would die
// because another member has.
func opaque(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, errors.New(err.Error())
	}
	return conn, nil
}

// dialFor is the dialer of an instance's olric client: addr is the name of an
// olric, another member's or its own.
func (s *Store) dialFor(ctx context.Context, in *instance, addr string) (net.Conn, error) {
	return opaque(s.dialName(ctx, in, addr))
}

func (s *Store) dialName(ctx context.Context, in *instance, addr string) (net.Conn, error) {
	if in.isCut() {
		return deadConn(), nil
	}
	conn := &olricConn{s: s, in: in, boot: s.cfg.Boot, name: addr}
	var err error
	if addr == in.name {
		conn.Conn, err = s.dialOwn(ctx, in)
	} else if conn.boot, conn.Conn, err = s.dialOlric(ctx, addr); err == nil {
		conn.Conn, err = in.keep(conn.Conn)
	}
	if err != nil {
		in.silent.Add(1)
		return nil, err
	}
	return conn, nil
}

// deadConn is a connection that is closed already. go-redis starts a goroutine
// for a server that couldn't be reached too often, which dials it for ever
// (pool.go, tryDial); olric never closes its clients. This lets it succeed, once
// nobody needs it any more.
func deadConn() net.Conn {
	a, b := net.Pipe()
	_ = b.Close()
	_ = a.Close()
	return a
}

// dialOlric connects to another member's olric by its name.
func (s *Store) dialOlric(ctx context.Context, name string) (boot uint64, conn net.Conn, err error) {
	boot, ok := s.peers.find(ctx, name)
	if !ok {
		return 0, nil, fmt.Errorf("kv: no member runs an olric named %s", name)
	}
	if conn, err = s.openStream(ctx, boot, askOlric, name); err != nil {
		return 0, nil, fmt.Errorf("kv: olric %s: %w", name, err)
	}
	return boot, conn, nil
}

// dialOwn connects an instance's client to its own server, by what serves other
// members' streams.
func (s *Store) dialOwn(ctx context.Context, in *instance) (net.Conn, error) {
	server, err := in.openServer(ctx, s.timings.dial)
	if err != nil {
		return nil, err
	}
	here, there := net.Pipe()
	kept, err := in.keep(here)
	if err != nil || !s.spawn(func() {
		defer there.Close()
		d := direct{answers: answers{in: in}, r: bufio.NewReader(there), w: bufio.NewWriter(there), server: server}
		_ = d.serve(s.ctx, s) // the end of the connection is an error too
	}) {
		return nil, errors.Join(err, server.Close(), here.Close(), there.Close(), ErrClosed)
	}
	return kept, nil
}

// openServer is dialServer, for a connection that is closed with the instance.
func (in *instance) openServer(ctx context.Context, limit time.Duration) (net.Conn, error) {
	conn, err := in.dialServer(ctx, limit)
	if err != nil {
		return nil, err
	}
	return in.keep(conn)
}

// dialServer connects to this instance's own server and logs in: clients here
// and on other members don't, they come through this process.
func (in *instance) dialServer(ctx context.Context, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", in.name)
	if err != nil {
		return nil, err
	}
	err = func() error {
		deadline, _ := ctx.Deadline()
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
		// In lower case: olric lets "auth" through before it has a partition
		// table, and no other spelling.
		if _, err := fmt.Fprintf(conn, "*2\r\n$4\r\nauth\r\n$%d\r\n%s\r\n", len(in.password), in.password); err != nil {
			return err
		}
		var ok [5]byte
		if _, err := io.ReadFull(conn, ok[:]); err != nil {
			return err
		}
		if string(ok[:]) != "+OK\r\n" {
			return errors.New("kv: olric's server refused the password")
		}
		return conn.SetDeadline(time.Time{})
	}()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// ServeStream serves a stream that another member opened, and returns when it
// is over. It closes conn.
func (s *Store) ServeStream(conn net.Conn) {
	defer conn.Close()
	if !s.begin() {
		return
	}
	defer s.goroutines.Done()
	if err := conn.SetDeadline(time.Now().Add(s.timings.dial)); err != nil {
		return
	}
	a, clock, name, err := readHello(conn)
	if err != nil {
		return
	}
	s.observe(clock)
	in := s.current()
	switch {
	case in == nil || a == askStatus && in.retired.Load():
		_ = writeAnswer(conn, statusNoKV, s.clock.now())
	case a == askOlric:
		s.serveOlric(conn, in, name)
	case a == askStatus:
		_ = s.serveStatus(conn, in)
	case a == askKeys || a == askCount:
		_ = s.serveKeys(conn, in, a, name)
	}
}

func (s *Store) serveOlric(conn net.Conn, in *instance, name string) {
	if name != in.name {
		_ = writeAnswer(conn, statusGone, s.clock.now())
		return
	}
	kept, err := in.keep(conn) // closed with the instance
	if err != nil {
		return
	}
	defer kept.Close()
	if writeAnswer(kept, statusOK, s.clock.now()) != nil || kept.SetDeadline(time.Time{}) != nil {
		return
	}
	d := direct{answers: answers{in: in}, r: bufio.NewReader(kept), w: bufio.NewWriter(kept)}
	_ = d.serve(s.ctx, s) // the end of the stream is an error too
}

// observe takes in another member's clock.
func (s *Store) observe(clock int64) {
	if !s.clock.observe(clock) && s.skewWarned.CompareAndSwap(false, true) {
		s.logger.Warn("another member's clock is too far ahead to be followed",
			"by", time.Duration(clock-s.clock.now()).String(), "bound", maxSkew.String())
	}
}

// status is what a member says about its olric.
type status struct {
	name    string
	members []string // oldest first
}

func (s *Store) serveStatus(conn net.Conn, in *instance) error {
	if err := writeAnswer(conn, statusOK, s.clock.now()); err != nil {
		return err
	}
	names := append([]string{in.name}, in.members()...)
	b := binary.BigEndian.AppendUint16(nil, uint16(len(names)))
	for _, n := range names {
		b = binary.BigEndian.AppendUint16(b, uint16(len(n)))
		b = append(b, n...)
	}
	_, err := conn.Write(b)
	return err
}

// maxMembers bounds what is believed of another member's list.
const maxMembers = 4096

func readStatus(r io.Reader) (status, error) {
	var n [2]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return status{}, err
	}
	count := int(binary.BigEndian.Uint16(n[:]))
	if count == 0 || count > maxMembers {
		return status{}, errHello
	}
	names := make([]string, 0, min(count, 64))
	for range count {
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return status{}, err
		}
		l := int(binary.BigEndian.Uint16(n[:]))
		if l > 64 {
			return status{}, errHello
		}
		b := make([]byte, l)
		if _, err := io.ReadFull(r, b); err != nil {
			return status{}, err
		}
		names = append(names, string(b))
	}
	if _, port, err := net.SplitHostPort(names[0]); err != nil {
		return status{}, errHello
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return status{}, errHello
	}
	return status{name: names[0], members: names[1:]}, nil
}

// askStatusOf asks a member which olric it runs.
func (s *Store) askStatusOf(ctx context.Context, boot uint64) (status, error) {
	conn, err := s.openStream(ctx, boot, askStatus, "")
	if err != nil {
		return status{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(s.timings.read)); err != nil {
		return status{}, err
	}
	return readStatus(conn)
}
