package cluster

import (
	"context"
	"encoding/binary"
	"strconv"
	"testing"
)

type countState struct{ N, Expires int64 }
type countOp struct{ Add int64 }
type countMachine struct{}

func (countMachine) Apply(c Call, s countState, op countOp) (countState, int64, Effect) {
	if s.N == 0 {
		s.Expires = c.Now + 3600e9
	}
	s.N += op.Add
	return s, s.N, Effect{Changed: op.Add != 0, Spent: op.Add, Bound: 100, Expires: s.Expires}
}
func (countMachine) AppendState(b []byte, s countState, now int64) []byte {
	b = binary.AppendVarint(b, s.N)
	return binary.AppendVarint(b, s.Expires-now)
}
func (countMachine) ParseState(b []byte, now int64) (countState, error) {
	n, w := binary.Varint(b)
	e, _ := binary.Varint(b[w:])
	return countState{n, e + now}, nil
}
func (countMachine) AppendOp(b []byte, op countOp) []byte { return binary.AppendVarint(b, op.Add) }
func (countMachine) ParseOp(b []byte) (countOp, error) {
	n, _ := binary.Varint(b)
	return countOp{n}, nil
}
func (countMachine) AppendResult(b []byte, r int64) []byte { return binary.AppendVarint(b, r) }
func (countMachine) ParseResult(b []byte) (int64, error) {
	n, _ := binary.Varint(b)
	return n, nil
}
func (countMachine) Merge(a, b countState) countState {
	if b.N > a.N {
		return b
	}
	return a
}

func BenchmarkTableLocal(b *testing.B) {
	t, err := NewTable[countState, countOp, int64](nil, countMachine{}, TableConfig{Name: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	keys := make([][]byte, 10000)
	for i := range keys {
		keys[i] = []byte("account:" + strconv.Itoa(100000+i))
	}
	ctx := context.Background()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := t.Do(ctx, keys[i%len(keys)], countOp{1}); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
