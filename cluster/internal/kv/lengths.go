package kv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// Olric's coordinator asks every owner and every backup of every partition how
// many entries it has, one after the other, whenever members change and once a
// second: 254 questions, until whose last answer nobody learns of the change. All
// that it wants to know is whether there are any. So a member is asked about all
// its partitions at once, and the questions that follow are answered from that.

// lengthsFor is for how long an answer is good. A partition that is written to
// meanwhile is found by olric's balancer: it is the same where olric asks first
// and distributes its table later.
const lengthsFor = 100 * time.Millisecond

// lengthsRefusedFor is for how long a member that does not know the question is
// not asked again.
const lengthsRefusedFor = 10 * time.Second

// lengths are what a member has of each partition, as its owner and then as its
// backup: hasNone, hasSome or hasUnknown.
type lengths struct {
	until time.Time
	has   []byte // nil: the member does not know the question
}

const (
	hasNone    = '0'
	hasSome    = '1'
	hasUnknown = '?' // olric must be asked
)

const (
	lengthOfPart = "internal.node.lengthofpart"
	allLengths   = "peerlimit.lengths"
)

var (
	askLengths  = appendCommand(nil, allLengths)
	lengthsHead = fmt.Appendf(nil, "$%d\r\n", 2*partitionCount)
)

// parseLength reads the arguments of olric's question for one length, and returns
// where in a member's lengths its answer is.
func parseLength(args [][]byte) (at int, ok bool) {
	if len(args) != 1 && (len(args) != 2 || string(args[1]) != "RC") {
		return 0, false
	}
	part, err := number(args[0])
	if err != nil || part < 0 || part >= partitionCount {
		return 0, false
	}
	return part + (len(args)-1)*partitionCount, true
}

// has tells what this member has of a partition.
func (g *engine) has(at int) byte {
	part := at % partitionCount
	asked, other := g.owned[part].Load(), g.backups[part].Load()
	if at >= partitionCount {
		asked, other = other, asked
	}
	known := int64(0)
	if other != nil {
		known = 1
	}
	switch {
	case asked != nil && asked.len() > 0:
		return hasSome
	case asked != nil || g.used[part].Load() <= known:
		return hasNone
	default:
		return hasUnknown // moved here, and not written to yet: olric knows as what
	}
}

// length answers olric's question: 1 stands for any number.
func (a *answers) length(args [][]byte) bool {
	at, ok := parseLength(args)
	if !ok {
		a.error("ERR no such partition") // olric would panic
		return true
	}
	return a.has(a.in.engine.has(at))
}

func (a *answers) has(b byte) bool {
	if b == hasUnknown {
		return false
	}
	a.out = append(a.out, ':', b, '\r', '\n')
	return true
}

func (a *answers) lengths() {
	var all [2 * partitionCount]byte
	for at := range all {
		all[at] = a.in.engine.has(at)
	}
	a.bulk(all[:])
}

// lengthFrom answers a question for one length from what the other member said
// last. known is false where it has to be asked for all of them.
func (in *instance) lengthFrom(name string, at int) (answer []byte, known bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	l := in.lengths[name]
	if time.Now().After(l.until) {
		return nil, false
	}
	a := answers{}
	if l.has == nil || !a.has(l.has[at]) {
		return nil, true
	}
	return a.out, true
}

// fetchLengths asks the other member by the stream.
func (c *olricConn) fetchLengths() error {
	if _, err := c.Conn.Write(askLengths); err != nil {
		return err
	}
	reply := make([]byte, len(lengthsHead)+2*partitionCount+len(crlf))
	n := 0
	for n < 2 || reply[0] == '-' && !bytes.HasSuffix(reply[:n], crlf) || reply[0] == '$' && n < len(reply) {
		if n == len(reply) {
			return errRESP
		}
		k, err := c.Conn.Read(reply[n:])
		if n += k; err != nil && (n < len(reply) || !errors.Is(err, io.EOF)) {
			return err
		}
	}
	l := lengths{until: time.Now().Add(lengthsRefusedFor)}
	if body, ok := bytes.CutPrefix(reply[:n], lengthsHead); ok && bytes.HasSuffix(body, crlf) {
		l = lengths{until: time.Now().Add(lengthsFor), has: body[:2*partitionCount]}
	} else if reply[0] != '-' {
		return errRESP
	}
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	if c.in.lengths == nil || len(c.in.lengths) > maxMembers {
		c.in.lengths = make(map[string]lengths)
	}
	c.in.lengths[c.name] = l
	return nil
}
