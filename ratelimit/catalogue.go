package ratelimit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// catalogue keeps the stored policies: in a table of the cluster, where they
// are safe, and on each member as a snapshot, where decisions find them.
//
// A change is written to the table, then the table's count of changes is
// raised, then every member is told and acknowledges. A member that was not
// reached sees from the count that it has missed something, and reads all.
type catalogue struct {
	table  *recordTable
	known  atomic.Pointer[snapshot] // nil: nothing is stored
	logger *slog.Logger

	// announce tells all members, this one among them, of a change.
	announce func(ctx context.Context, payload []byte) cluster.Receipt

	mu    sync.Mutex // serialises changes of known, and guards what follows
	count uint32     // of changes, as far as known has them
	read  time.Time  // when all was read last
}

type recordTable = cluster.Table[record, recordOp, recordResult, recordMachine]

// snapshot is not changed once it is stored.
type snapshot struct{ policies map[string]*entry }

// countKey has the table's count of changes. No policy's name has a zero byte.
var countKey = []byte{0}

const (
	pollEvery   = 2 * time.Second  // look at the count
	reloadEvery = 60 * time.Second // read all, whatever the count says
	retryEvery  = 50 * time.Millisecond
)

// newCatalogue opens the table of policies next to that of a limiter.
func newCatalogue(node *cluster.Node, tc cluster.TableConfig, logger *slog.Logger) (*catalogue, error) {
	tc.Name += ":policies"
	tc.MaxEntries = 4 * MaxPolicies
	c := &catalogue{logger: logger}
	var err error
	if c.table, err = cluster.NewTable[record, recordOp, recordResult](node, recordMachine{}, tc); err != nil {
		return nil, fmt.Errorf("ratelimit: %w", err)
	}
	if node == nil {
		c.announce = func(_ context.Context, payload []byte) cluster.Receipt {
			_ = c.receive(payload)
			return cluster.Receipt{Reached: 1, Members: 1}
		}
		return c, nil
	}
	node.Handle(tc.Name, func(_ context.Context, _ cluster.Member, payload []byte) ([]byte, error) {
		return nil, c.receive(payload)
	})
	c.announce = func(ctx context.Context, payload []byte) cluster.Receipt {
		return node.Broadcast(ctx, tc.Name, payload)
	}
	return c, nil
}

type changed struct {
	done    bool
	receipt cluster.Receipt
}

// change writes one record and tells everybody.
func (c *catalogue) change(ctx context.Context, name string, o recordOp) (changed, error) {
	r, err := c.table.Do(ctx, []byte(name), o)
	if err != nil {
		return changed{}, fmt.Errorf("ratelimit: store policy %s: %w", name, err)
	}
	if !r.done {
		return changed{}, nil
	}
	n, err := c.table.Do(ctx, countKey, recordOp{kind: recordCount})
	if err != nil {
		return changed{}, fmt.Errorf("ratelimit: store policy %s: %w", name, err)
	}
	payload := binary.AppendUvarint(nil, uint64(n.record.version))
	payload = append(payload, byte(len(name)))
	payload = append(payload, name...)
	payload = appendRecord(payload, r.record, true)
	return changed{true, c.announce(ctx, payload)}, nil
}

// receive takes in a change that a member announces.
func (c *catalogue) receive(payload []byte) error {
	r := reader{b: payload}
	count := uint32(r.uvarint(1<<32 - 1))
	n := int(r.byte())
	if r.bad || n > len(r.b) || !validName(string(r.b[:n])) {
		return errMalformed
	}
	name := string(r.b[:n])
	rec, _, err := parseRecord(r.b[n:])
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.takeLocked(map[string]record{name: rec}); err != nil {
		return err
	}
	if count == c.count+1 {
		c.count = count // else something was missed: the next poll reads all
	}
	return nil
}

// takeLocked makes records known that are later than what is. One that this
// member can't read, written by a later version or in a time zone unknown here,
// is an error, and keeps none of the others away.
func (c *catalogue) takeLocked(records map[string]record) error {
	var next map[string]*entry
	if old := c.known.Load(); old != nil {
		next = maps.Clone(old.policies)
	} else {
		next = make(map[string]*entry, len(records))
	}
	var errs []error
	for name, rec := range records {
		if e := next[name]; e != nil && e.version >= rec.version {
			continue
		}
		if rec.deleted {
			next[name] = &entry{version: rec.version, deleted: true}
			continue
		}
		s, err := decodePolicy(rec.body)
		if err != nil {
			errs = append(errs, fmt.Errorf("ratelimit: stored policy %s: %w", name, err))
			continue
		}
		next[name] = newEntry(rec.version, s)
	}
	c.known.Store(&snapshot{next})
	return errors.Join(errs...)
}

// reload reads all that is stored, and stores again what was lost.
func (c *catalogue) reload(ctx context.Context) error {
	lost, err := c.readAll(ctx)
	if err != nil {
		err = fmt.Errorf("ratelimit: read policies: %w", err)
	}
	for _, e := range lost {
		err = errors.Join(err, c.restore(ctx, e))
	}
	return err
}

func (c *catalogue) readAll(ctx context.Context) (lost []*entry, err error) {
	n, err := c.table.Do(ctx, countKey, recordOp{kind: recordGet})
	if err != nil {
		return nil, err
	}
	before := c.known.Load()
	names, err := c.table.Keys(ctx, "", 2*MaxPolicies)
	if err != nil {
		return nil, err
	}
	records := make(map[string]record, len(names))
	for _, name := range names {
		if name == string(countKey) {
			continue
		}
		r, err := c.table.Do(ctx, []byte(name), recordOp{kind: recordGet})
		if err != nil {
			return nil, err
		}
		if r.record.version != 0 {
			records[name] = r.record
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count = n.record.version
	if len(records) == 0 && before == nil && c.known.Load() == nil {
		c.read = time.Now()
		return nil, nil
	}
	unread := c.takeLocked(records)
	lost = c.missingLocked(before, records)
	c.read = time.Now()
	return lost, unread
}

// missingLocked finds what was known before all was read and is not stored any
// more. Deletions are remembered for an hour, so a policy that is gone without
// one was lost with the members that kept it, and is returned to be stored
// again; unless this member was cut off for so long that the deletion may have
// been forgotten meanwhile.
func (c *catalogue) missingLocked(before *snapshot, stored map[string]record) (lost []*entry) {
	if before == nil {
		return nil
	}
	inTouch := time.Since(c.read) < time.Duration(deletionsKept)/2
	next := maps.Clone(c.known.Load().policies)
	for name, e := range before.policies {
		if _, is := stored[name]; is || next[name] != e {
			continue
		}
		if !e.deleted && inTouch {
			lost = append(lost, e)
			continue
		}
		delete(next, name)
	}
	c.known.Store(&snapshot{next})
	return lost
}

// restore stores what was lost, if nobody else has.
func (c *catalogue) restore(ctx context.Context, e *entry) error {
	o, err := putOp(e.stored)
	if err != nil {
		return err
	}
	o.expected = true
	_, err = c.change(ctx, e.stored.Policy.Name, o)
	return err
}

// follow keeps this member's snapshot up to date until ctx ends.
func (c *catalogue) follow(ctx context.Context) {
	pause, read, trouble := retryEvery, time.Time{}, ""
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		missed, err := c.missed(ctx)
		if err == nil && (missed || time.Since(read) > reloadEvery) {
			if err = c.reload(ctx); err == nil {
				read = time.Now()
			}
		}
		switch {
		case err == nil:
			pause, trouble = pollEvery, ""
		case pause < pollEvery:
			pause *= 2
		case ctx.Err() == nil && trouble != err.Error():
			trouble = err.Error()
			c.logger.Warn("stored policies may be out of date", "error", err)
		}
		timer.Reset(pause)
	}
}

// missed looks whether there were changes that this member was not told of.
func (c *catalogue) missed(ctx context.Context) (bool, error) {
	n, err := c.table.Do(ctx, countKey, recordOp{kind: recordGet})
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return n.record.version != c.count, nil
}
