package kv

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A member that leaves sends what it held in batches, each straight to where it
// belongs: to the owners of the partitions, and then to their backups. As writes,
// each entry by itself and passed on by its owner, the same took three members'
// processors several times as long, just when they had the leaver's calls to
// answer. What a batch did not bring to its place is offered again as a write.
//
// A batch is a command with a role and the entries, each its length (4 bytes) and
// its envelope. The answer has a byte for each.
const (
	keepEntries = "peerlimit.keep"

	roleOwner  = "owner"
	roleBackup = "backup"

	entryKept    = '1'
	entryRefused = '0'

	batchBytes = 128 << 10 // about what one has
	batchWait  = 2 * time.Second
)

// entrySet is entries by the hashes of their keys.
type entrySet map[uint64]envelope

// handOver sends everything in g, tombstones too, to the members that have the
// keys now, and returns how many of them their owners did not take. What ctx must
// be: see copyAll.
func (s *Store) handOver(ctx context.Context, rm *remote, g *engine) (failed int) {
	table, err := rm.client.RoutingTable(ctx)
	if err != nil {
		return s.copyAll(ctx, rm, g, copyWorkers)
	}
	owners, backups := make(map[string]entrySet), make(map[string]entrySet)
	all := 0
	g.each(func(hkey uint64, e envelope) {
		all++
		r := table[hkey%partitionCount]
		addTo(owners, r.PrimaryOwners, hkey, e)
		if len(r.ReplicaOwners) > 0 {
			addTo(backups, r.ReplicaOwners, hkey, e)
		}
	})
	// Owners first: with a partition's first entry they make its backup a place.
	rest := s.sendAll(ctx, roleOwner, owners)
	maps.Copy(rest, s.sendAll(ctx, roleBackup, backups))
	s.copied.Add(uint64(all - len(rest)))
	return s.copyEach(ctx, rm, g, slices.Collect(maps.Values(rest)), copyWorkers)
}

// addTo adds an entry to those of the last of some members, to whom the others
// give theirs; "": there is none.
func addTo(sets map[string]entrySet, members []string, hkey uint64, e envelope) {
	name := ""
	if n := len(members); n > 0 {
		name = members[n-1]
	}
	if sets[name] == nil {
		sets[name] = make(entrySet)
	}
	sets[name][hkey] = e
}

// sendAll sends each member its entries, and returns those that were not taken.
func (s *Store) sendAll(ctx context.Context, role string, sets map[string]entrySet) entrySet {
	rest := make(entrySet)
	var mu sync.Mutex // guards rest
	var wg sync.WaitGroup
	slots := make(chan struct{}, copyWorkers)
	for name, set := range sets {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s.sendTo(ctx, name, role, set)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(rest, set)
		})
	}
	wg.Wait()
	return rest
}

// sendTo sends one member its entries, and removes from set what that has taken.
func (s *Store) sendTo(ctx context.Context, name, role string, set entrySet) {
	if name == "" || ctx.Err() != nil {
		return
	}
	_, conn, err := s.dialOlric(ctx, name)
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	out := keeper{conn: conn, r: bufio.NewReader(conn), role: role}
	var hkeys []uint64
	var body []byte
	send := func() bool {
		taken, err := out.send(body, len(hkeys))
		for i, hkey := range hkeys {
			if err == nil && taken[i] == entryKept {
				delete(set, hkey)
			}
		}
		hkeys, body = hkeys[:0], body[:0]
		return err == nil && sleep(ctx, s.timings.pace)
	}
	for hkey, e := range maps.Clone(set) {
		if len(body) > 0 && len(body)+len(e) > batchBytes && !send() {
			return
		}
		hkeys, body = append(hkeys, hkey), appendEntry(body, e)
	}
	if len(hkeys) > 0 {
		send()
	}
}

// keeper sends batches to one member.
type keeper struct {
	conn net.Conn
	r    *bufio.Reader
	role string
}

// send sends a batch of n entries and returns the answer.
func (k *keeper) send(body []byte, n int) ([]byte, error) {
	if err := k.conn.SetDeadline(time.Now().Add(batchWait)); err != nil {
		return nil, err
	}
	if _, err := k.conn.Write(appendCommand(nil, keepEntries, k.role, string(body))); err != nil {
		return nil, err
	}
	line, err := k.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if string(line) != "$"+strconv.Itoa(n)+"\r\n" {
		return nil, fmt.Errorf("kv: a batch of %d entries was answered %.80q", n, line)
	}
	answer := make([]byte, n+len(crlf))
	if _, err := io.ReadFull(k.r, answer); err != nil {
		return nil, err
	}
	if !bytes.HasSuffix(answer, crlf) {
		return nil, errRESP
	}
	return answer[:n], nil
}

func appendEntry(b []byte, e envelope) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(e))), e...)
}

// nextEntry reads the first of some entries, which it doesn't copy.
func nextEntry(b []byte) (e envelope, rest []byte, err error) {
	if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
		return nil, nil, errEnvelope
	}
	n := int(binary.BigEndian.Uint32(b))
	e, err = parseEnvelope(b[4 : 4+n])
	if err == nil && e.mode() != modeStored {
		err = errEnvelope
	}
	return e, b[4+n:], err
}

// keep answers a batch. Its entries go to the shards past olric's lock: what is
// there stays if it is later, so that it does not matter which comes first.
func (a *answers) keep(args [][]byte) {
	if len(args) != 2 || string(args[0]) != roleOwner && string(args[0]) != roleBackup {
		a.fail(errRESP)
		return
	}
	if a.in.retired.Load() || !a.in.up.Load() {
		a.fail(errRetired)
		return
	}
	var kept []byte
	for rest := args[1]; len(rest) > 0; {
		var e envelope
		var err error
		if e, rest, err = nextEntry(rest); err != nil {
			a.fail(err)
			return
		}
		if a.in.keepEntry(string(args[0]), e) {
			kept = append(kept, entryKept)
		} else {
			kept = append(kept, entryRefused)
		}
	}
	a.bulk(kept)
}

// keepEntry takes an entry as the owner of its key or as its backup.
func (in *instance) keepEntry(role string, e envelope) bool {
	d := digest(string(e.key()))
	hkey := hashOfDigest(d)
	shards := &in.engine.backups
	if role == roleOwner {
		shards = &in.engine.owned
	}
	sh := shards[hkey%partitionCount].Load()
	switch {
	case sh != nil:
		sh.put(hkey, e.stored(e.version()))
		return true
	case role == roleOwner: // the partition's first: olric makes its shards
		return putHere(in.dmap, d, e, false) == nil
	default:
		return false
	}
}
