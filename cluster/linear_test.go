package cluster_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

// count is a counter that remembers what it answered lately, so that an
// operation which is sent again gets the answer of its first sending.
type count struct {
	N, Expires int64
	Lately     [remembered]answered
	At         int
}

type answered struct {
	ID uint64
	N  int64
}

// remembered is more than the operations that can be under way on one key.
const remembered = 32

// counting is the machine: an operation is what to add, 0 reads; its result is
// the count after it.
type counting struct{}

func (counting) Apply(c cluster.Call, s count, add int64) (count, int64, cluster.Effect) {
	if add == 0 {
		return s, s.N, cluster.Effect{}
	}
	if c.Again {
		for _, a := range s.Lately {
			if a.ID == c.ID {
				return s, a.N, cluster.Effect{}
			}
		}
	}
	s.N += add
	s.Expires = c.Now + int64(time.Hour)
	s.Lately[s.At] = answered{c.ID, s.N}
	s.At = (s.At + 1) % remembered
	return s, s.N, cluster.Effect{Changed: true, Expires: s.Expires}
}

func (counting) AppendState(b []byte, s count, now int64) []byte {
	b = binary.AppendVarint(b, s.N)
	b = binary.AppendVarint(b, s.Expires-now)
	b = binary.AppendVarint(b, int64(s.At))
	for _, a := range s.Lately {
		b = binary.AppendVarint(binary.BigEndian.AppendUint64(b, a.ID), a.N)
	}
	return b
}

var errCount = errors.New("malformed count")

func (counting) ParseState(b []byte, now int64) (s count, err error) {
	var expires, at int64
	for _, to := range []*int64{&s.N, &expires, &at} {
		n, w := binary.Varint(b)
		if w <= 0 {
			return count{}, errCount
		}
		*to, b = n, b[w:]
	}
	if at < 0 || at >= remembered {
		return count{}, errCount
	}
	s.Expires, s.At = now+expires, int(at)
	for i := range s.Lately {
		if len(b) < 9 {
			return count{}, errCount
		}
		s.Lately[i].ID = binary.BigEndian.Uint64(b)
		n, w := binary.Varint(b[8:])
		if w <= 0 {
			return count{}, errCount
		}
		s.Lately[i].N, b = n, b[8+w:]
	}
	return s, nil
}

func (counting) AppendOp(b []byte, add int64) []byte   { return binary.AppendVarint(b, add) }
func (counting) AppendResult(b []byte, n int64) []byte { return binary.AppendVarint(b, n) }
func (counting) ParseOp(b []byte) (int64, error)       { return parseVarint(b) }
func (counting) ParseResult(b []byte) (int64, error)   { return parseVarint(b) }

func parseVarint(b []byte) (int64, error) {
	n, w := binary.Varint(b)
	if w != len(b) || w <= 0 {
		return 0, errCount
	}
	return n, nil
}

func (counting) Merge(a, b count) count {
	if b.N > a.N {
		return b
	}
	return a
}

type countTable = cluster.Table[count, int64, int64, counting]

func newCount(t testing.TB, n *cluster.Node) *countTable {
	t.Helper()
	table, err := cluster.NewTable[count, int64, int64](n, counting{}, cluster.TableConfig{Name: "count"})
	require.NoError(t, err)
	return table
}

// history is what callers asked and were answered, as porcupine takes it.
type history struct {
	began time.Time
	keys  int

	mu         sync.Mutex
	operations []porcupine.Operation // guarded by mu
	uncertain  int                   // guarded by mu
	failed     []string              // guarded by mu

	stop chan struct{}
	wg   sync.WaitGroup
}

type asked struct {
	key string
	add int64
}

// unanswered is the output of an operation that may or may not have run, and
// whose answer nobody got.
const unanswered = int64(math.MinInt64)

func newHistory(keys int) *history {
	return &history{began: time.Now(), keys: keys, stop: make(chan struct{})}
}

// run has one more client ask table until the history is closed.
func (h *history) run(table *countTable, client int) {
	h.wg.Go(func() {
		random := rand.New(rand.NewPCG(uint64(client), 1))
		for {
			select {
			case <-h.stop:
				return
			default:
			}
			ask := asked{key: fmt.Sprintf("counter:%d", random.IntN(h.keys)), add: int64(random.IntN(3))}
			call := time.Since(h.began)
			n, err := table.Do(context.Background(), []byte(ask.key), ask.add)
			h.add(client, ask, int64(call), int64(time.Since(h.began)), n, err)
			time.Sleep(time.Millisecond) // a load, not a benchmark
		}
	})
}

func (h *history) add(client int, ask asked, call, end, n int64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil:
	case errors.Is(err, cluster.ErrUncertain) && ask.add != 0:
		h.uncertain++
		n, end = unanswered, math.MaxInt64
	default:
		if errors.Is(err, cluster.ErrUnavailable) {
			h.uncertain++
		} else {
			h.failed = append(h.failed, err.Error())
		}
		return
	}
	h.operations = append(h.operations, porcupine.Operation{ClientId: client, Input: ask, Call: call, Output: n, Return: end})
}

// counterModel is what a counter is: one number, that operations add to one
// after the other, each answered with what it made of it.
var counterModel = (&porcupine.NondeterministicModel{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range all {
			key := op.Input.(asked).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() []any { return []any{int64(0)} },
	Step: func(state, input, output any) []any {
		before, after := state.(int64), state.(int64)+input.(asked).add
		switch output.(int64) {
		case unanswered:
			return []any{before, after}
		case after:
			return []any{after}
		}
		return nil
	},
}).ToModel()

// check ends the history and requires that it is one of counters that run on a
// single member would have.
func (h *history) check(t *testing.T) {
	t.Helper()
	close(h.stop)
	h.wg.Wait()
	t.Logf("%d operations on %d counters, %d of them uncertain", len(h.operations), h.keys, h.uncertain)
	require.Empty(t, h.failed)
	assert.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(counterModel, h.operations, time.Minute))
	if h.uncertain > len(h.operations)/20 {
		t.Errorf("%d of %d operations are uncertain: too many to tell anything", h.uncertain, len(h.operations))
	}
}

// The check itself: a history in which a counter forgot is found.
func TestLinearCheckFindsALostUpdate(t *testing.T) {
	op := func(call, end, add, n int64) porcupine.Operation {
		return porcupine.Operation{Input: asked{"k", add}, Call: call, Return: end, Output: n}
	}
	good := []porcupine.Operation{op(0, 1, 1, 1), op(2, 5, 1, 3), op(3, 4, 1, 2), op(6, 7, 0, 3)}
	require.True(t, porcupine.CheckOperations(counterModel, good))
	for name, last := range map[string]porcupine.Operation{
		"a lost update": op(6, 7, 0, 2), "one that came from nowhere": op(6, 7, 0, 4), "the same count twice": op(6, 7, 1, 3),
	} {
		bad := append(append([]porcupine.Operation(nil), good[:3]...), last)
		assert.False(t, porcupine.CheckOperations(counterModel, bad), name)
	}
	open := append(append([]porcupine.Operation(nil), good...), op(8, math.MaxInt64, 1, unanswered))
	for _, seen := range []int64{3, 4} {
		assert.True(t, porcupine.CheckOperations(counterModel, append(append([]porcupine.Operation(nil), open...), op(9, 10, 0, seen))))
	}
}

func TestCountersAreLinearizable(t *testing.T) {
	c := clustertest.Start(t, 3)
	h := newHistory(12)
	for i, n := range c.Nodes {
		table := newCount(t, n)
		for client := range 3 {
			h.run(table, 3*i+client)
		}
	}
	time.Sleep(time.Second)
	h.check(t)
}

// Members come and go, and no counter shows it: no update is lost, none is
// counted twice, nobody reads an older count than was answered before.
func TestCountersAreLinearizableThroughJoinsAndLeaves(t *testing.T) {
	c := clustertest.Start(t, 3)
	h := newHistory(12)
	tables := make([]*countTable, len(c.Nodes))
	for i, n := range c.Nodes {
		tables[i] = newCount(t, n)
	}
	for client := range 6 { // of a member that stays
		h.run(tables[2], client)
	}
	pause := func() { time.Sleep(150 * time.Millisecond) }
	pause()
	joined := newCount(t, c.Add())
	h.run(joined, 6)
	pause()
	c.Close(c.Nodes[0])
	pause()
	h.run(newCount(t, c.Add()), 7)
	pause()
	c.Close(c.Nodes[1])
	pause()
	h.check(t)
}
