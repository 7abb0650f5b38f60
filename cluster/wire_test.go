package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlimit/peerlimit/cluster/internal/peer"
	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

func TestRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := request{
			table: rapid.Uint64().Draw(t, "table"), tried: rapid.Uint64().Draw(t, "tried"), again: rapid.Bool().Draw(t, "again"),
			key: rapid.SliceOfN(rapid.Byte(), 1, MaxKey).Draw(t, "key"), op: rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "op"),
		}
		b := appendRequest(nil, &want)
		got, err := parseRequest(b)
		require.NoError(t, err)
		require.Equal(t, append([]byte{}, want.op...), append([]byte{}, got.op...))
		got.op = want.op
		require.Equal(t, want, got)
		for n := range len(b) - len(want.op) {
			_, err := parseRequest(b[:n])
			require.ErrorIs(t, err, errRequest, "cut to %d of %d", n, len(b))
		}
		// What changes from one sending to the next stands where send puts it.
		binary.BigEndian.PutUint64(b[requestTried:], 77)
		b[requestAgain] = 1
		got, err = parseRequest(b)
		require.NoError(t, err)
		require.EqualValues(t, 77, got.tried)
		require.True(t, got.again)
		require.Equal(t, want.key, got.key)
	})
}

func TestMalformedRequests(t *testing.T) {
	good := appendRequest(nil, &request{table: 1, key: []byte("key"), op: []byte("op")})
	_, err := parseRequest(good)
	require.NoError(t, err)
	long := appendRequest(nil, &request{key: bytes.Repeat([]byte("k"), MaxKey+1)})
	flag := bytes.Clone(good)
	flag[requestAgain] = 2
	for name, b := range map[string][]byte{
		"nothing": nil, "no key": appendRequest(nil, &request{}), "a key too long": long, "an unknown flag": flag,
		"a length without an end": append(bytes.Repeat([]byte{0}, 17), 0xff, 0xff, 0xff),
		"a length beyond all":     append(bytes.Repeat([]byte{0}, 17), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
	} {
		_, err := parseRequest(b)
		require.ErrorIs(t, err, errRequest, name)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(appendRequest(nil, &request{table: 1, tried: 2, again: true, key: []byte("key"), op: []byte("op")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err != nil {
			return
		}
		if len(r.key) == 0 || len(r.key) > MaxKey {
			t.Fatalf("a key of %d bytes", len(r.key))
		}
		again, err := parseRequest(appendRequest(nil, &r))
		if err != nil || again.table != r.table || again.tried != r.tried || again.again != r.again ||
			!bytes.Equal(again.key, r.key) || !bytes.Equal(again.op, r.op) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}

// one starts a member of its own with a table.
func one(t *testing.T) (*Node, *Table[countState, countOp, int64, countMachine]) {
	t.Helper()
	n, err := Start(context.Background(), Config{NodeID: "one", Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0", KVBind: "127.0.0.1:0"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	table, err := NewTable[countState, countOp, int64](n, countMachine{}, TableConfig{Name: "count"})
	require.NoError(t, err)
	require.NoError(t, n.AwaitReady(t.Context()))
	return n, table
}

func TestAnswersOfOthers(t *testing.T) {
	n, _ := one(t)
	o := n.owner
	moved := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte{byte(evMoved)}, 7), 9)
	for name, c := range map[string]struct {
		payload []byte
		want    *outevent // nil: it is dropped
	}{
		"nothing":                {nil, nil},
		"an unknown kind":        {[]byte{200}, nil},
		"an event of one's own":  {[]byte{byte(evAcked)}, nil},
		"silence, said aloud":    {[]byte{byte(evSilent)}, nil},
		"moved, cut short":       {moved[:16], nil},
		"moved, and more":        {append(bytes.Clone(moved), 0), nil},
		"moved":                  {moved, &outevent{kind: evMoved, from: 5, to: 7, epoch: 9}},
		"a result":               {[]byte{byte(evAnswered), 1, 2}, answeredWith(5, []byte{1, 2})},
		"an empty result":        {[]byte{byte(evAnswered)}, &outevent{kind: evAnswered, from: 5}},
		"too few members":        {[]byte{byte(evRefused)}, &outevent{kind: evRefused, from: 5}},
		"too much is waiting":    {[]byte{byte(evBusy)}, &outevent{kind: evBusy, from: 5}},
		"it can't be read there": {[]byte{byte(evBad)}, &outevent{kind: evBad, from: 5}},
	} {
		call, err := o.calls.begin(context.Background(), 4711, 1, o.clock.now())
		require.NoError(t, err)
		o.replied(5, peer.Message{Type: typeReply, ID: 4712, Payload: c.payload}) // another's
		o.replied(5, peer.Message{Type: typeReply, ID: 4711, Payload: c.payload})
		select {
		case ev := <-call.events:
			require.NotNil(t, c.want, "%s: %+v", name, ev)
			require.Equal(t, *c.want, ev, name)
		default:
			require.Nil(t, c.want, name)
		}
		o.calls.end(call)
		o.replied(5, peer.Message{Type: typeReply, ID: 4711, Payload: c.payload}) // too late
	}
}

// An answer beyond what a caller has room for is dropped, and waits for nobody.
func TestAFloodOfAnswers(t *testing.T) {
	n, _ := one(t)
	call, err := n.owner.calls.begin(context.Background(), 1, 1, 1)
	require.NoError(t, err)
	for range 100 {
		n.owner.replied(5, peer.Message{Type: typeReply, ID: 1, Payload: []byte{byte(evBusy)}})
	}
	n.owner.calls.end(call)
	again, err := n.owner.calls.begin(context.Background(), 2, 1, 1)
	require.NoError(t, err)
	require.Empty(t, again.events, "events of another operation")
	n.owner.calls.end(again)
}

// Requests of other members that can't be read, or are for tables that nobody
// has, do no harm.
func TestHostileRequests(t *testing.T) {
	n, table := one(t)
	for _, b := range [][]byte{nil, {1}, bytes.Repeat([]byte{0xff}, 40),
		appendRequest(nil, &request{table: 4711, key: []byte("k")}),
		appendRequest(nil, &request{table: table.id, key: []byte("k"), op: []byte{0xff}}),
		appendRequest(nil, &request{table: table.id, key: []byte(strings.Repeat("k", MaxKey)), op: []byte{2}}),
	} {
		n.owner.message(5, peer.Message{Type: typeOp, ID: 1, Payload: b})
		n.owner.message(5, peer.Message{Type: typeProtocol, Payload: b})
		n.owner.message(5, peer.Message{Type: 255, Payload: b})
	}
	v, err := table.Do(context.Background(), []byte("k2"), countOp{1})
	require.NoError(t, err)
	require.EqualValues(t, 1, v)
}

// Too many waiting operations are refused at once, with nothing run.
func TestBusy(t *testing.T) {
	n, table := one(t)
	o := n.owner
	key := []byte("account:1")
	slot := uint16(xxhash.Sum64(key) % store.Slots)
	reign := o.gate.Get(slot)
	require.NotNil(t, reign)
	o.gate.Set(slot, nil) // so that it has to wait

	o.calls.n.Store(maxOutcalls)
	_, err := table.Do(context.Background(), key, countOp{1})
	require.ErrorIs(t, err, ErrBusy)
	require.EqualValues(t, maxOutcalls, o.calls.n.Load())
	o.calls.n.Store(0)

	o.mu.Lock()
	o.waiting = maxParked
	o.mu.Unlock()
	_, err = table.Do(context.Background(), key, countOp{1})
	require.ErrorIs(t, err, ErrBusy)
	o.mu.Lock()
	o.waiting = 0
	o.mu.Unlock()
	require.Zero(t, o.calls.n.Load())

	o.gate.Set(slot, reign)
	v, err := table.Do(context.Background(), key, countOp{1})
	require.NoError(t, err)
	require.EqualValues(t, 1, v, "what was refused has not run")
}

// An operation that waits for a slot ends with its context, or with the time of
// a call, and is run when the slot opens.
func TestWaitingForASlot(t *testing.T) {
	n, table := one(t)
	o := n.owner
	key := []byte("account:1")
	slot := uint16(xxhash.Sum64(key) % store.Slots)
	reign := o.gate.Get(slot)
	o.gate.Set(slot, nil)

	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	start := time.Now()
	_, err := table.Do(ctx, key, countOp{1})
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrUncertain, "it never ran")
	require.Less(t, time.Since(start), 200*time.Millisecond)

	ctx, cancel = context.WithTimeout(context.Background(), 30*time.Millisecond)
	start = time.Now()
	_, err = table.Do(ctx, key, countOp{1})
	cancel()
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrUncertain, "it never ran")
	require.Less(t, time.Since(start), 200*time.Millisecond)

	start = time.Now()
	_, err = table.Do(context.Background(), key, countOp{1})
	require.ErrorIs(t, err, ErrUnavailable)
	require.InDelta(t, 0.25*slowness, time.Since(start).Seconds(), 0.2)

	time.AfterFunc(30*time.Millisecond, func() {
		o.gate.Set(slot, reign)
		o.enter(func(int64) { (*ownerPort)(o).Wake(slot) })
	})
	v, err := table.Do(context.Background(), key, countOp{1})
	require.NoError(t, err)
	require.EqualValues(t, 1, v, "those that were given up have not run")
}

// Sections of entries: those of a table that is not known are kept and passed
// on, bad ones are errors.
func TestSections(t *testing.T) {
	key := []byte("account:1")
	hash := xxhash.Sum64(key)
	slot := uint16(hash % store.Slots)
	newStore := func(marks *store.Marks) *store.Store[countState, countOp, int64, countMachine] {
		return store.New[countState, countOp, int64](countMachine{}, 100, marks)
	}
	add := func(st *store.Store[countState, countOp, int64, countMachine]) {
		st.Do(store.OpenGate(), hash, key, &Call{Now: 1}, &countOp{5}, new(int64))
	}
	source := tables{marks: new(store.Marks), audiences: nobody}
	a, b := newStore(source.marks), newStore(source.marks)
	add(a)
	add(b)
	add(b)
	source.put(1, tableEntries[countState, countOp, int64, countMachine]{Store: a})
	source.put(2, tableEntries[countState, countOp, int64, countMachine]{Store: b})
	source.follow(slot, store.Follower, false)
	entries, all := source.collect(slot, store.Follower, 1, nil, math.MaxInt)
	require.True(t, all)

	keeper := tables{marks: new(store.Marks), audiences: nobody}
	require.NoError(t, keeper.take(slot, entries, 1, false))
	require.Len(t, keeper.list, 2)
	keeper.follow(slot, store.Follower, false)
	passed, _ := keeper.collect(slot, store.Follower, 1, nil, math.MaxInt)

	for _, got := range [][]byte{entries, passed} {
		target := tables{marks: new(store.Marks), audiences: nobody}
		known := newStore(target.marks)
		target.put(2, tableEntries[countState, countOp, int64, countMachine]{Store: known})
		require.NoError(t, target.take(slot, got, 1, false))
		s, ok := known.Peek(hash, key, 1)
		require.True(t, ok)
		require.EqualValues(t, 10, s.N)
		kept, ok := target.get(1).(unknown)
		require.True(t, ok)
		require.Equal(t, 1, kept.Len(1, nil))

		// The table is made later: it takes over what was kept.
		late := newStore(target.marks)
		entries := tableEntries[countState, countOp, int64, countMachine]{Store: late}
		require.NoError(t, inheritSlot(entries, kept, slot, 1))
		s, ok = late.Peek(hash, key, 1)
		require.True(t, ok)
		require.EqualValues(t, 5, s.N)
		require.Zero(t, kept.Len(1, nil))
	}

	target := tables{marks: new(store.Marks), audiences: nobody}
	for n := 1; n < len(entries); n++ {
		err := target.take(slot, entries[:n], 1, false)
		if n != len(entries)/2 { // there the first section ends
			require.Error(t, err, "cut to %d of %d", n, len(entries))
		}
	}
	require.Error(t, target.take(slot+1, entries, 1, false), "another slot's")
}

func FuzzSections(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(append(binary.BigEndian.AppendUint64(nil, 7), 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		ts := tables{marks: new(store.Marks), audiences: nobody}
		ts.getOrKeep(7)
		slot := uint16(5)
		if len(b) > 13 && int(b[12]) > 0 && len(b) > 13+int(b[12]) {
			slot = uint16(xxhash.Sum64(b[13:13+int(b[12])]) % store.Slots)
		}
		ts.follow(slot, store.Backup, false)
		if ts.take(slot, b, 1, true) == nil {
			ts.collect(slot, store.Backup, 1, nil, math.MaxInt)
			ts.acked(slot, store.Backup)
		}
		ts.drop(slot)
	})
}

func answeredWith(from uint64, result []byte) *outevent {
	ev := &outevent{kind: evAnswered, from: from}
	ev.setResult(result)
	return ev
}

func nobody(entries) {}
