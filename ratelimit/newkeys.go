package ratelimit

import (
	"hash/maphash"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"
)

// newKeys counts how many keys each source creates, so that a client that makes
// one up for every request, an API key or an address of its own /48, can't fill
// the memory. It has a fixed size: sources are hashed to cells, and those that
// meet in one share a count. A key that lasts for less than a minute counts for
// as much of one: a short policy's keys come and go with every request, and fill
// nothing.
type newKeys struct {
	limit  uint64 // keys a minute, in parts; 0: no cap
	now    func() time.Time
	seed   maphash.Seed
	cells  [newKeyCells]atomic.Uint64 // minute << 32 | keys, in parts
	hot    atomic.Uint64              // the last minute in which a source reached the limit
	capped atomic.Uint64              // decisions in a shared bucket
}

const (
	newKeyCells      = 4096
	defaultNewKeys   = 100_000
	sourceBits4      = 24
	sourceBits6      = 48
	minuteShift      = 32
	newKeysCountMask = 1<<minuteShift - 1
	keyParts         = 256 // parts of a key that lasts a minute or more
)

func (n *newKeys) init(perMinute int, now func() time.Time) {
	n.seed, n.now = maphash.MakeSeed(), now
	switch {
	case perMinute == 0:
		n.limit = defaultNewKeys * keyParts
	case perMinute > 0:
		n.limit = uint64(min(perMinute, 1<<22)) * keyParts
	}
}

// source is where a request comes from: the prefix of an address. The zero value
// is one that is not counted. It is found out only when it is asked for.
type source struct {
	addr   netip.Addr
	finder *finder       // with request: finds addr
	req    *http.Request // nil: addr is known, or there is none

	prefix netip.Prefix
	cell   *atomic.Uint64
}

// locate finds out where the source's count for a policy is, if it has one.
// Private addresses are not counted: behind one of them stands a proxy that
// speaks for everybody, or one's own.
func (n *newKeys) locate(s *source, policy string) bool {
	if s.cell != nil {
		return true
	}
	if s.req != nil {
		s.addr, _ = s.finder.addr(s.req)
		s.req = nil
	}
	a := s.addr
	if !a.IsValid() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return false
	}
	bits := sourceBits6
	if a.Is4() {
		bits = sourceBits4
	}
	s.prefix, _ = a.Prefix(bits)
	b := s.prefix.Addr().As16()
	h := maphash.Bytes(n.seed, b[:]) ^ maphash.String(n.seed, policy)
	s.cell = &n.cells[h%newKeyCells]
	return true
}

// over tells whether the source may create no more keys this minute. As long as
// no source has come that far it costs one load.
func (n *newKeys) over(s *source, policy string) bool {
	if hot := n.hot.Load(); hot == 0 || hot != n.minute() {
		return false
	}
	if !n.locate(s, policy) {
		return false
	}
	v := s.cell.Load()
	return v&newKeysCountMask >= n.limit && v>>minuteShift == n.minute()
}

func (n *newKeys) minute() uint64 { return uint64(n.now().Unix()/60) & newKeysCountMask }

// saw counts the key if it was created.
func (n *newKeys) saw(s *source, policy string, res *result) {
	if n.limit == 0 || res.flags&(resultFresh|resultAllowed) != resultFresh|resultAllowed {
		return
	}
	parts := uint64(min(res.whole, int64(time.Minute)) / (int64(time.Minute) / keyParts))
	if parts == 0 || !n.locate(s, policy) {
		return
	}
	minute := n.minute()
	for {
		v := s.cell.Load()
		next := v + parts
		if v>>minuteShift != minute {
			next = minute<<minuteShift | parts
		}
		if s.cell.CompareAndSwap(v, next) {
			if next&newKeysCountMask >= n.limit {
				n.hot.Store(minute)
			}
			return
		}
	}
}

// key is that of the bucket which keys beyond the cap share. It has a byte after
// the policy's name that no other key has.
func (s *source) key(policy string) []byte {
	b := append([]byte(policy), 1)
	return s.prefix.AppendTo(b)
}
