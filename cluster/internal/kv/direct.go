package kv

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/olric-data/olric"
)

// A member's stream to this one's olric is not copied to olric's server byte for
// byte: that would be two more connections' worth of system calls for every
// call, which is most of what a call costs. The commands that reads and writes
// are made of are answered here, by the same functions that olric's server would
// call; all others are passed on to it, one after the other.

const (
	maxArgs    = 16
	maxCommand = 16 << 20 // bytes; a moved piece of a partition has some 2 MiB
	maxNesting = 8
)

var errRESP = errors.New("kv: malformed RESP")

// command is one as it came: its arguments are parts of raw.
type command struct {
	raw  []byte
	args [][]byte
}

// read reads the next command, in the only form that clients send: an array of
// bulk strings.
func (c *command) read(r *bufio.Reader) error {
	if cap(c.raw) > 1<<20 {
		c.raw = nil
	}
	c.raw, c.args = c.raw[:0], c.args[:0]
	count, err := c.header(r, '*')
	if err != nil {
		return err
	}
	if count < 1 || count > maxArgs {
		return errRESP
	}
	type part struct{ from, to int }
	var parts [maxArgs]part
	for i := range count {
		n, err := c.header(r, '$')
		if err != nil {
			return err
		}
		from := len(c.raw)
		if n < 0 || from+n+2 > maxCommand {
			return errRESP
		}
		if err := c.take(r, n+2); err != nil {
			return err
		}
		if !bytes.HasSuffix(c.raw, crlf) {
			return errRESP
		}
		parts[i] = part{from, from + n}
	}
	for _, p := range parts[:count] {
		c.args = append(c.args, c.raw[p.from:p.to])
	}
	return nil
}

var crlf = []byte("\r\n")

func (c *command) header(r *bufio.Reader, kind byte) (int, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			err = errRESP
		}
		return 0, err
	}
	c.raw = append(c.raw, line...)
	if len(line) < 4 || line[0] != kind || !bytes.HasSuffix(line, crlf) {
		return 0, errRESP
	}
	return number(line[1 : len(line)-2])
}

// take appends the next n bytes. It grows with what has come, not with what was
// announced.
func (c *command) take(r *bufio.Reader, n int) error {
	for n > 0 {
		step := min(n, 64<<10)
		at := len(c.raw)
		c.raw = append(c.raw, make([]byte, step)...)
		if _, err := io.ReadFull(r, c.raw[at:]); err != nil {
			return err
		}
		n -= step
	}
	return nil
}

func number(b []byte) (int, error) {
	if len(b) == 0 || len(b) > 9 {
		return 0, errRESP
	}
	n, err := strconv.Atoi(string(b))
	if err != nil {
		return 0, errRESP
	}
	return n, nil
}

// direct serves one stream.
type direct struct {
	in *instance
	r  *bufio.Reader
	w  *bufio.Writer

	server net.Conn // olric's, once it was needed
	reply  *bufio.Reader
}

func (d *direct) serve(ctx context.Context, s *Store) error {
	defer func() {
		if d.server != nil {
			_ = d.server.Close()
		}
	}()
	var c command
	for {
		if err := c.read(d.r); err != nil {
			return err
		}
		if !d.answer(&c) {
			if err := d.pass(ctx, s, c.raw); err != nil {
				return err
			}
		}
		if d.r.Buffered() == 0 {
			if err := d.w.Flush(); err != nil {
				return err
			}
		}
	}
}

// answer answers the commands that are known here; false: it is for olric.
func (d *direct) answer(c *command) (known bool) {
	switch name := string(c.args[0]); name {
	case "hello", "client":
		// What go-redis begins every connection with, and olric doesn't know.
		d.error("ERR unknown command '" + name + "'")
		return true
	}
	if len(c.args) < 3 || string(c.args[1]) != dmapName || !d.in.up.Load() {
		return false
	}
	key := string(c.args[2])
	var flag string
	switch name := string(c.args[0]); {
	case name == "dm.get" && len(c.args) == 4:
		if flag = string(c.args[3]); flag != "RW" {
			return false
		}
		d.get(key)
	case name == "dm.put" && (len(c.args) == 4 || len(c.args) == 5 && string(c.args[4]) == "NX"):
		d.put(key, c.args[3], len(c.args) == 5)
	case name == "dm.getentry" && len(c.args) == 4 && string(c.args[3]) == "RC":
		return d.getBackup(key)
	case name == "dm.putentry" && len(c.args) == 4:
		return d.putBackup(key, c.args[3])
	default:
		return false
	}
	return true
}

// get is olric's getCommandHandler.
func (d *direct) get(key string) {
	b, err := func() (b []byte, err error) {
		defer recovered(&err)
		r, err := d.in.dmap.Get(context.Background(), key)
		if err != nil {
			return nil, err
		}
		return r.Byte()
	}()
	if err != nil {
		d.fail(err)
		return
	}
	d.bulk(b)
}

// put is olric's putCommandHandler.
func (d *direct) put(key string, value []byte, nx bool) {
	err := func() (err error) {
		defer recovered(&err)
		if nx {
			return d.in.dmap.Put(context.Background(), key, value, olric.NX())
		}
		return d.in.dmap.Put(context.Background(), key, value)
	}()
	if err != nil {
		d.fail(err)
		return
	}
	d.ok()
}

func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("olric panicked: %v", p)
	}
}

// getBackup is olric's getEntryCommandHandler for replicas. Before olric has
// made the partition's backup here it is olric's to answer.
func (d *direct) getBackup(key string) bool {
	hkey := hashOfDigest(key)
	s := d.in.engine.backups[hkey%partitionCount].Load()
	if s == nil {
		return false
	}
	if e := s.get(hkey); e != nil {
		d.bulk(e)
	} else {
		d.fail(olric.ErrKeyNotFound)
	}
	return true
}

// putBackup is olric's putEntryCommandHandler.
func (d *direct) putBackup(key string, raw []byte) bool {
	hkey := hashOfDigest(key)
	s := d.in.engine.backups[hkey%partitionCount].Load()
	if s == nil {
		return false
	}
	e, err := parseEnvelope(raw)
	if err != nil || e.mode() != modeStored {
		d.fail(errEnvelope)
		return true
	}
	s.put(hkey, e.stored(e.version()))
	d.ok()
	return true
}

// fail writes an error as olric's server does, by whose first word its client
// tells them apart.
func (d *direct) fail(err error) {
	switch {
	case errors.Is(err, olric.ErrKeyNotFound):
		d.error(respNotFound)
	case errors.Is(err, olric.ErrKeyFound):
		d.error("KEYFOUND key found")
	default:
		d.error("ERR " + strings.NewReplacer("\r", " ", "\n", " ").Replace(err.Error()))
	}
}

const respNotFound = "KEYNOTFOUND key not found"

// Errors of writing stay with the writer until it is flushed.

func (d *direct) ok() { _, _ = d.w.WriteString("+OK\r\n") }

func (d *direct) error(text string) {
	_ = d.w.WriteByte('-')
	_, _ = d.w.WriteString(text)
	_, _ = d.w.Write(crlf)
}

func (d *direct) bulk(b []byte) {
	var n [20]byte
	_ = d.w.WriteByte('$')
	_, _ = d.w.Write(strconv.AppendInt(n[:0], int64(len(b)), 10))
	_, _ = d.w.Write(crlf)
	_, _ = d.w.Write(b)
	_, _ = d.w.Write(crlf)
}

// pass has olric's server answer a command.
func (d *direct) pass(ctx context.Context, s *Store, raw []byte) error {
	if d.server == nil {
		conn, err := d.in.dialServer(ctx, s.timings.dial)
		if err != nil {
			return err
		}
		if d.server, err = d.in.keep(conn); err != nil {
			return err
		}
		d.reply = bufio.NewReader(d.server)
	}
	if _, err := d.server.Write(raw); err != nil {
		return err
	}
	return copyReply(d.w, d.reply, 0)
}

// copyReply copies one reply.
func copyReply(w io.Writer, r *bufio.Reader, depth int) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(line) < 3 || !bytes.HasSuffix(line, crlf) || depth > maxNesting {
		return errRESP
	}
	kind := line[0]
	n := 0
	if kind == '$' || kind == '*' {
		if n, err = number(line[1 : len(line)-2]); err != nil {
			return err
		}
	}
	if _, err := w.Write(line); err != nil {
		return err
	}
	switch kind {
	case '+', '-', ':':
		return nil
	case '$':
		if n < 0 {
			return nil
		}
		_, err := io.CopyN(w, r, int64(n)+2)
		return err
	case '*':
		for range n {
			if err := copyReply(w, r, depth+1); err != nil {
				return err
			}
		}
		return nil
	default:
		return errRESP
	}
}
