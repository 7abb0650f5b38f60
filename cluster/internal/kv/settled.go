package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/vmihailenco/msgpack/v5"
)

// # Settled owners
//
// Olric's owner of a key asks the backup on every read, and takes the later of
// the two. That is needed after members have changed, when an owner may not have
// everything, or have something old. Once all has settled an owner that has an
// entry has the latest one: the backup is written first, under a lock, and the
// owner only if that succeeded.
//
// So, while nothing has changed for a while (timings.trust), an owner answers a
// read from what it has, and who is not the owner asks it by one call, for a read
// or a write: olric's client and its goroutines take no part. What the owner does
// not have, and the write itself, is its olric's.
//
// Who owns what is told by olric's coordinator, which sends its table to every
// member, once a second and when members change. The tables come through here. From
// the moment that one comes until olric has taken it, and where it differs from
// the one before, nothing counts as settled: a member answers as the owner for no
// longer than its olric would.

// ownerTable is who owns what.
type ownerTable struct {
	push  uint64    // which of the tables that came it is
	sum   uint64    // of all owners and backups
	since time.Time // from when on that was the same
	// owners are by partition; one that has had others, who may still have
	// something of it, has none.
	owners [partitionCount]partOwner
	// settled: it has been the same for a while, and so have the members.
	settled atomic.Bool
}

// partOwner is an olric, or nobody.
type partOwner struct {
	name string
	boot uint64 // 0: it can't be called
}

const updateRouting = "internal.node.updaterouting"

// settledTable returns the owners, or nil while olric has to be asked.
func (in *instance) settledTable() *ownerTable {
	t := in.table.Load()
	if t == nil || !t.settled.Load() || t.push != in.pushes.Load() || in.retired.Load() {
		return nil
	}
	return t
}

// take keeps a table that olric has taken. bootOf returns 0 where it does not know
// the member.
func (in *instance) take(push uint64, payload []byte, bootOf func(name string) uint64) {
	t, err := parseTable(payload)
	if err != nil {
		return // olric is asked each time
	}
	t.push, t.since = push, time.Now()
	before := in.table.Load()
	same := before != nil && before.sum == t.sum
	boots := make(map[string]uint64)
	if before != nil {
		for _, o := range before.owners {
			if o.boot != 0 {
				boots[o.name] = o.boot
			}
		}
	}
	for part := range t.owners {
		o := &t.owners[part]
		if _, ok := boots[o.name]; !ok && o.name != "" && o.name != in.name {
			boots[o.name] = bootOf(o.name)
		}
		o.boot = boots[o.name]
		same = same && *o == before.owners[part]
	}
	if same {
		t.since = before.since
		t.settled.Store(before.settled.Load())
	}
	in.table.Store(t)
}

// parseTable reads what olric's coordinator sends: internal/cluster/routingtable
// of olric, type route.
func parseTable(payload []byte) (t *ownerTable, err error) {
	defer recovered(&err)
	type member struct{ Name string }
	var routes map[uint64]struct{ Owners, Backups []member }
	if err := msgpack.Unmarshal(payload, &routes); err != nil {
		return nil, fmt.Errorf("kv: olric's table: %w", err)
	}
	if len(routes) != partitionCount {
		return nil, fmt.Errorf("kv: olric's table has %d partitions: want %d", len(routes), partitionCount)
	}
	t = new(ownerTable)
	sum := xxhash.New()
	for part := range t.owners {
		r, ok := routes[uint64(part)]
		if !ok || len(r.Owners) == 0 {
			return nil, fmt.Errorf("kv: olric's table has no owner of partition %d", part)
		}
		if len(r.Owners) == 1 {
			t.owners[part].name = r.Owners[0].Name
		}
		for _, members := range [][]member{r.Owners, r.Backups} {
			for _, m := range members {
				_, _ = sum.WriteString(m.Name + " ")
			}
			_, _ = sum.WriteString("\n")
		}
	}
	t.sum = sum.Sum64()
	return t, nil
}

// settledEntry returns what this member has of a key that it owns, or nil where
// olric has to be asked.
func (in *instance) settledEntry(hkey uint64) envelope {
	t := in.settledTable()
	if t == nil || t.owners[hkey%partitionCount].name != in.name {
		return nil
	}
	sh := in.engine.owned[hkey%partitionCount].Load()
	if sh == nil {
		return nil
	}
	return sh.get(hkey)
}

// commandLen bounds what a command has beside its entry.
const commandLen = 200

// errAskOlric: this was not answered without it.
var errAskOlric = errors.New("kv: olric has to be asked")

// fetchSettled reads without olric where that can be.
func (s *Store) fetchSettled(ctx context.Context, key string) (envelope, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in := s.current()
	if in == nil {
		return nil, errAskOlric
	}
	d := digest(key)
	hkey := hashOfDigest(d)
	if e := in.settledEntry(hkey); e != nil {
		return e, nil
	}
	answer, err := s.askOwner(ctx, in, hkey, "dm.get", dmapName, d, "RW")
	if err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(answer, doubtful):
		in.silent.Add(1)
		return nil, nil
	case bytes.HasPrefix(answer, notFound):
		return nil, nil
	case len(answer) == 0 || answer[0] != '$':
		return nil, errAskOlric
	}
	body, err := bulkOf(answer)
	if err != nil {
		return nil, errAskOlric
	}
	e, err := parseEnvelope(body)
	if err != nil {
		return nil, errAskOlric
	}
	return e, nil
}

// storeSettled writes by way of the owner's olric alone where that can be. What
// it could not do may have been done.
func (s *Store) storeSettled(ctx context.Context, key string, e envelope, sameKind bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	in := s.current()
	if in == nil || len(e) > maxCall-commandLen {
		return errAskOlric
	}
	d := digest(key)
	args := []string{"dm.put", dmapName, d, string(e), "NX"}
	if !sameKind {
		args = args[:4]
	}
	answer, err := s.askOwner(ctx, in, hashOfDigest(d), args...)
	switch {
	case err != nil:
		return err
	case string(answer) == respOK:
		return nil
	case bytes.HasPrefix(answer, []byte("-KEYFOUND")):
		return ErrWrongKind
	default:
		return errAskOlric
	}
}

// askOwner has the other member that owns a key answer a command.
func (s *Store) askOwner(ctx context.Context, in *instance, hkey uint64, args ...string) ([]byte, error) {
	t := in.settledTable()
	if t == nil {
		return nil, errAskOlric
	}
	owner := t.owners[hkey%partitionCount]
	if owner.boot == 0 || owner.name == in.name {
		return nil, errAskOlric
	}
	answer, err := s.ask(ctx, owner, CallOwner, appendCommand(nil, args...), s.timings.call/2)
	if err == nil && answer != nil {
		return answer, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		t.settled.Store(false) // until the watchdog has looked
	}
	return nil, errAskOlric
}

func appendCommand(b []byte, args ...string) []byte {
	b = strconv.AppendInt(append(b, '*'), int64(len(args)), 10)
	for _, arg := range args {
		b = strconv.AppendInt(append(b, "\r\n$"...), int64(len(arg)), 10)
		b = append(append(b, "\r\n"...), arg...)
	}
	return append(b, "\r\n"...)
}

// bulkOf returns what a bulk string is made of.
func bulkOf(answer []byte) ([]byte, error) {
	head, body, ok := bytes.Cut(answer, crlf)
	if !ok || len(head) < 2 {
		return nil, errRESP
	}
	n, err := number(head[1:])
	if err != nil || len(body) != n+len(crlf) {
		return nil, errRESP
	}
	return body[:n], nil
}
