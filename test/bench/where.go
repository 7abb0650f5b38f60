package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// whereTable finds out which keys this member holds: a table's entries are at
// their holders, and a key has the same holder in all tables.
type whereTable = cluster.Table[byte, byte, byte, whereMachine]

func newWhereTable(node *cluster.Node) (*whereTable, error) {
	return cluster.NewTable[byte, byte, byte](node, whereMachine{}, cluster.TableConfig{Name: "where"})
}

// whereMachine makes an entry, for a minute, of each key that is asked for.
type whereMachine struct{}

func (whereMachine) Apply(c cluster.Call, _ byte, _ byte) (byte, byte, cluster.Effect) {
	return 1, 1, cluster.Effect{Changed: true, Expires: c.Now + int64(time.Minute)}
}

var errWhere = errors.New("where: want one byte")

func parseWhere(b []byte) (byte, error) {
	if len(b) != 1 {
		return 0, errWhere
	}
	return b[0], nil
}

func (whereMachine) AppendState(b []byte, s byte, _ int64) []byte { return append(b, s) }
func (whereMachine) ParseState(b []byte, _ int64) (byte, error)   { return parseWhere(b) }
func (whereMachine) AppendOp(b []byte, op byte) []byte            { return append(b, op) }
func (whereMachine) ParseOp(b []byte) (byte, error)               { return parseWhere(b) }
func (whereMachine) AppendResult(b []byte, r byte) []byte         { return append(b, r) }
func (whereMachine) ParseResult(b []byte) (byte, error)           { return parseWhere(b) }
func (whereMachine) Merge(a, b byte) byte                         { return max(a, b) }

// held returns which of the keys of a limiter's rule this member holds.
func (m *member) held(ctx context.Context, rule string, keys []string) (map[string]bool, error) {
	const callers = 64
	var (
		wait   sync.WaitGroup
		failed = make([]error, callers)
		prefix = rule + "\x00" // a limiter's keys are in its table under the rule's name, a zero byte, the key
	)
	for i := range callers {
		wait.Go(func() {
			for k := i; k < len(keys) && failed[i] == nil; k += callers {
				_, failed[i] = m.where.Do(ctx, []byte(prefix+keys[k]), 1)
			}
		})
	}
	wait.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, fmt.Errorf("finding the holders: %w", err)
	}
	held := make(map[string]bool, len(keys))
	m.where.Range(func(key string, _ byte) bool {
		if len(key) > len(prefix) && key[:len(prefix)] == prefix {
			held[key[len(prefix):]] = true
		}
		return true
	})
	return held, nil
}

// pick returns a path's keys, with their holders where the path wants them.
func (m *member) pick(ctx context.Context, p path) ([]string, error) {
	if p.where == anywhere {
		return p.names(p.keys), nil
	}
	candidates := p.names(p.candidates())
	held, err := m.held(ctx, p.rule.Name, candidates)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, key := range candidates {
		if held[key] == (p.where == here) && len(keys) < p.keys {
			keys = append(keys, key)
		}
	}
	if len(keys) < p.keys {
		return nil, fmt.Errorf("only %d of %d keys, not %d, are where path %s wants them", len(keys), len(candidates), p.keys, p.name)
	}
	return keys, nil
}
