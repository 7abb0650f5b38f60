package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// Kinds of the calls that gather over all members.
const (
	kindKeys  = "cluster:keys"
	kindCount = "cluster:count"
)

// maxKeysBytes bounds the keys that one member answers with.
const maxKeysBytes = 900 << 10

var errGather = errors.New("cluster: malformed answer")

// handleGathering answers other members' questions about this one's entries.
func (o *owner) handleGathering() {
	o.node.Handle(kindCount, func(_ context.Context, _ Member, b []byte) ([]byte, error) {
		if len(b) != 8 {
			return nil, errGather
		}
		n := 0
		if t := o.tables.get(binary.BigEndian.Uint64(b)); t != nil {
			n = t.Len(o.clock.now(), func(slot uint16) bool { return o.gate.Get(slot) != nil })
		}
		return binary.AppendUvarint(nil, uint64(n)), nil
	})
	o.node.Handle(kindKeys, func(_ context.Context, _ Member, b []byte) ([]byte, error) {
		if len(b) < 12 {
			return nil, errGather
		}
		t := o.tables.get(binary.BigEndian.Uint64(b))
		if t == nil {
			return nil, nil
		}
		var out []byte
		for _, key := range t.keysHere(string(b[12:]), int(binary.BigEndian.Uint32(b[8:]))) {
			if len(out)+len(key)+4 > maxKeysBytes {
				break
			}
			out = binary.AppendUvarint(out, uint64(len(key)))
			out = append(out, key...)
		}
		return out, nil
	})
}

// gather asks all members at once and gives each answer to f.
func (o *owner) gather(ctx context.Context, kind string, question []byte, f func([]byte) error) error {
	type answer struct {
		from Member
		b    []byte
		err  error
	}
	members := o.node.Members()
	answers := make(chan answer, len(members))
	for _, m := range members {
		go func() {
			b, err := o.node.Call(ctx, m, kind, question)
			answers <- answer{m, b, err}
		}()
	}
	var errs []error
	for range members {
		a := <-answers
		if a.err == nil {
			a.err = f(a.b)
		}
		if a.err != nil {
			errs = append(errs, fmt.Errorf("cluster: member %s: %w", a.from.Name, a.err))
		}
	}
	return errors.Join(errs...)
}

func (o *owner) keys(ctx context.Context, table uint64, prefix string, limit int) ([]string, error) {
	question := binary.BigEndian.AppendUint64(nil, table)
	question = binary.BigEndian.AppendUint32(question, uint32(min(max(limit, 0), 1<<31)))
	question = append(question, prefix...)
	var keys []string
	err := o.gather(ctx, kindKeys, question, func(b []byte) error {
		for len(b) > 0 {
			n, w := binary.Uvarint(b)
			if w <= 0 || n > uint64(len(b)-w) {
				return errGather
			}
			keys = append(keys, string(b[w:w+int(n)]))
			b = b[w+int(n):]
		}
		return nil
	})
	return keys, err
}

func (o *owner) count(ctx context.Context, table uint64) (int, error) {
	n := 0
	err := o.gather(ctx, kindCount, binary.BigEndian.AppendUint64(nil, table), func(b []byte) error {
		v, w := binary.Uvarint(b)
		if w <= 0 {
			return errGather
		}
		n += int(v)
		return nil
	})
	return n, err
}
