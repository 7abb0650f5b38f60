package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"
)

// Bounds of what one entry may carry.
const (
	MaxKey   = 4096
	MaxState = 64 << 10
)

var errShort = errors.New("store: entry is cut short")

// appendEntry appends one entry: key, age (ns since the durations in the state
// were measured), remaining life (ns from now, signed), state.
func appendEntry(b []byte, key string, age, remaining int64, state func([]byte) []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	b = binary.AppendVarint(b, age)
	b = binary.AppendVarint(b, remaining)
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = state(b)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// rawEntry is an entry as it travels.
type rawEntry struct {
	key            []byte
	age, remaining int64
	state          []byte
}

func parseEntry(b []byte) (e rawEntry, rest []byte, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n == 0 || n > MaxKey || uint64(len(b)-w) < n {
		return e, nil, errShort
	}
	e.key, b = b[w:w+int(n)], b[w+int(n):]
	if e.age, w = binary.Varint(b); w <= 0 {
		return e, nil, errShort
	}
	b = b[w:]
	if e.remaining, w = binary.Varint(b); w <= 0 {
		return e, nil, errShort
	}
	b = b[w:]
	if len(b) < 4 {
		return e, nil, errShort
	}
	size := binary.BigEndian.Uint32(b)
	b = b[4:]
	if size > MaxState || uint64(size) > uint64(len(b)) {
		return e, nil, errShort
	}
	e.state = b[:size]
	return e, b[size:], nil
}

// later returns the instant d after t. What never expires here does not on a
// member whose clock is ahead either.
func later(t, d int64) int64 {
	switch s := t + d; {
	case d > 0 && s < t:
		return math.MaxInt64
	case d < 0 && s > t:
		return math.MinInt64
	default:
		return s
	}
}

// Import takes entries of slot as [Store.Collect] made them. With merge they
// are joined with what is there and become changes of their own; without, they
// replace it. Bad input is an error, and what came before it stays.
func (st *Store[S, O, R, M]) Import(slot uint16, b []byte, now int64, merge bool) error {
	sh := &st.shards[slot%shardCount]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for len(b) > 0 {
		raw, rest, err := parseEntry(b)
		if err != nil {
			return err
		}
		b = rest
		hash := xxhash.Sum64(raw.key)
		if uint16(hash%Slots) != slot {
			return fmt.Errorf("store: key of slot %d among those of slot %d", hash%Slots, slot)
		}
		state, err := st.machine.ParseState(raw.state, now-raw.age)
		if err != nil {
			return fmt.Errorf("store: state: %w", err)
		}
		expires := later(now, raw.remaining)
		i := sh.find(slot, uint32(hash), raw.key)
		switch {
		case i == 0 && expires <= now:
			continue
		case i == 0:
			i = st.insert(sh, slot, uint32(hash), raw.key, expires, now)
		case merge && sh.at(i).expires > now:
			if expires > now {
				state = st.machine.Merge(sh.at(i).state, state)
			} else {
				state = sh.at(i).state
			}
			expires = max(expires, sh.at(i).expires)
		}
		sh.at(i).state = state
		sh.setExpiry(i, expires)
		if merge {
			sh.changed(st.marks, slot, i, Effect{})
		}
	}
	return nil
}
