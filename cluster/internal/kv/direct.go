package kv

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/olric-data/olric"
)

// What a member asks this one's olric, by a call or by a stream, is not copied to
// olric's server byte for byte: that would be two more connections' worth of
// system calls for every call, which is most of what a call costs. The commands
// that reads and writes are made of are answered here, by the same functions that
// olric's server would call; all others are passed on to it, one after the other.

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
		c.raw = slices.Grow(c.raw, step)[:at+step]
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
	answers
	r *bufio.Reader
	w *bufio.Writer

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
		if d.answer(&c) {
			_, _ = d.w.Write(d.out)
			if d.out = d.out[:0]; cap(d.out) > 1<<20 {
				d.out = nil
			}
		} else if err := d.passOn(ctx, s, &c); err != nil {
			return err
		}
		if d.r.Buffered() == 0 {
			if err := d.w.Flush(); err != nil {
				return err
			}
		}
	}
}

// answers are those that are given here.
type answers struct {
	in  *instance
	out []byte
}

// answer answers the commands that are known here; false: it is for olric.
func (a *answers) answer(c *command) (known bool) {
	switch name := string(c.args[0]); name {
	case "hello", "client":
		// What go-redis begins every connection with, and olric doesn't know.
		a.error("ERR unknown command '" + name + "'")
		return true
	case lengthOfPart:
		return a.length(c.args[1:])
	case allLengths:
		a.lengths()
		return true
	case keepEntries:
		a.keep(c.args[1:])
		return true
	}
	if len(c.args) < 3 || string(c.args[1]) != dmapName || !a.in.up.Load() {
		return false
	}
	key := string(c.args[2])
	var flag string
	switch name := string(c.args[0]); {
	case name == "dm.get" && len(c.args) == 4:
		if flag = string(c.args[3]); flag != "RW" {
			return false
		}
		a.get(key)
	case name == "dm.put" && (len(c.args) == 4 || len(c.args) == 5 && string(c.args[4]) == "NX"):
		a.put(key, c.args[3], len(c.args) == 5)
	case name == "dm.getentry" && len(c.args) == 4 && string(c.args[3]) == "RC":
		return a.getBackup(key)
	case name == "dm.putentry" && len(c.args) == 4:
		return a.putBackup(key, c.args[3])
	default:
		return false
	}
	return true
}

// get is olric's getCommandHandler.
func (a *answers) get(key string) {
	if e := a.in.settledEntry(hashOfDigest(key)); e != nil {
		a.bulk(e)
		return
	}
	if a.in.retired.Load() {
		if e := a.in.engine.findHash(hashOfDigest(key)); e != nil {
			a.bulk(e)
		} else {
			a.fail(errRetired)
		}
		return
	}
	silent := a.in.silent.Load()
	b, err := func() (b []byte, err error) {
		defer recovered(&err)
		r, err := a.in.dmap.Get(context.Background(), key)
		if err != nil {
			return nil, err
		}
		return r.Byte()
	}()
	switch {
	case errors.Is(err, olric.ErrKeyNotFound) && a.in.silent.Load() != silent:
		a.error(respDoubtful)
	case err != nil:
		a.fail(err)
	default:
		a.bulk(b)
	}
}

// put is olric's putCommandHandler.
func (a *answers) put(key string, value []byte, nx bool) {
	if a.in.retired.Load() {
		a.fail(errRetired)
		return
	}
	if err := putHere(a.in.dmap, key, value, nx); err != nil {
		a.fail(err)
		return
	}
	a.ok()
}

func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("olric panicked: %v", p)
	}
}

// getBackup is olric's getEntryCommandHandler for replicas. Before olric has
// made the partition's backup here it is olric's to answer.
func (a *answers) getBackup(key string) bool {
	hkey := hashOfDigest(key)
	s := a.in.engine.backups[hkey%partitionCount].Load()
	if s == nil {
		return false
	}
	if e := s.get(hkey); e != nil {
		a.bulk(e)
	} else {
		a.fail(olric.ErrKeyNotFound)
	}
	return true
}

// putBackup is olric's putEntryCommandHandler.
func (a *answers) putBackup(key string, raw []byte) bool {
	hkey := hashOfDigest(key)
	s := a.in.engine.backups[hkey%partitionCount].Load()
	if s == nil {
		return false
	}
	e, err := parseEnvelope(raw)
	if err != nil || e.mode() != modeStored {
		a.fail(errEnvelope)
		return true
	}
	s.put(hkey, e.stored(e.version()))
	a.ok()
	return true
}

// fail writes an error as olric's server does, by whose first word its client
// tells them apart.
func (a *answers) fail(err error) {
	switch {
	case errors.Is(err, olric.ErrKeyNotFound):
		a.error(respNotFound)
	case errors.Is(err, olric.ErrKeyFound):
		a.error("KEYFOUND key found")
	default:
		a.error("ERR " + strings.NewReplacer("\r", " ", "\n", " ").Replace(err.Error()))
	}
}

const (
	respOK       = "+OK\r\n"
	respNotFound = "KEYNOTFOUND key not found"
	// respDoubtful is to olric the same, and to us a miss that nobody may rely
	// on: another member that may have the key did not answer.
	respDoubtful = "KEYNOTFOUND not every copy was asked"
)

// errRetired: this member leaves, and can't write any more: what it has as a
// backup it still keeps up to date, and tells of what it has.
var errRetired = errors.New("kv: this member is leaving")

func (a *answers) ok() { a.out = append(a.out, respOK...) }

func (a *answers) error(text string) {
	a.out = append(append(a.out, '-'), text...)
	a.out = append(a.out, crlf...)
}

func (a *answers) bulk(b []byte) {
	a.out = strconv.AppendInt(append(a.out, '$'), int64(len(b)), 10)
	a.out = append(append(a.out, crlf...), b...)
	a.out = append(a.out, crlf...)
}

// passOn has olric's server answer a command, and sees what tables it gets.
func (d *direct) passOn(ctx context.Context, s *Store, c *command) error {
	if string(c.args[0]) != updateRouting || len(c.args) < 2 {
		_, err := d.pass(ctx, s, c.raw)
		return err
	}
	d.in.tableMu.Lock() // one after the other, as olric takes them
	defer d.in.tableMu.Unlock()
	push := d.in.pushes.Add(1)
	reply, err := d.pass(ctx, s, c.raw)
	if err == nil && reply == '$' {
		d.in.take(push, c.args[1], s.peers.known)
	}
	return err
}

// pass returns what kind of reply it was.
func (d *direct) pass(ctx context.Context, s *Store, raw []byte) (kind byte, err error) {
	if d.server == nil {
		if d.server, err = d.in.openServer(ctx, s.timings.dial); err != nil {
			return 0, err
		}
	}
	if d.reply == nil {
		d.reply = bufio.NewReader(d.server)
	}
	if _, err := d.server.Write(raw); err != nil {
		return 0, err
	}
	first, err := d.reply.Peek(1)
	if err != nil {
		return 0, err
	}
	kind = first[0]
	return kind, copyReply(d.w, d.reply, 0)
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
