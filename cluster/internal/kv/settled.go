package kv

import (
	"bytes"
	"net"
)

// ownerConn is a connection of an instance's olric to another member's.
//
// Olric's owner of a key asks the backup on every read, and takes the later of
// the two. That is needed after members have changed, when an owner may not have
// everything, or have something old. Once all has settled an owner that has an
// entry has the latest one: the backup is written first, under a lock, and the
// owner only if that succeeded. So there the question is answered here, with
// "not found", which is to olric as if there were no other copy.
type ownerConn struct {
	net.Conn
	in      *instance
	pending []byte // an answer that was not asked for; the one caller's
}

// A read of a backup is one write of these bytes, the digest between them.
var (
	askBackupHead = []byte("*4\r\n$11\r\ndm.getentry\r\n$9\r\n" + dmapName + "\r\n$32\r\n")
	askBackupTail = []byte("\r\n$2\r\nRC\r\n")
	notFound      = []byte("-" + respNotFound + "\r\n")
)

// Write implements net.Conn.
func (c *ownerConn) Write(b []byte) (int, error) {
	if c.in.settled.Load() && c.in.engine.hasAsOwner(b) {
		c.pending = notFound
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// Read implements net.Conn.
func (c *ownerConn) Read(b []byte) (int, error) {
	if len(c.pending) > 0 {
		n := copy(b, c.pending)
		c.pending = c.pending[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

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
