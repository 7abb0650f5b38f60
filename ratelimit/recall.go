package ratelimit

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// Members tell one another of slices and denials by calls of two kinds, whose
// payload is a table key: give back what you were lent of it; and forget what
// you remember of it, of everything where the payload is empty.
type recalls struct {
	node           *cluster.Node
	recall, forget string    // kinds of calls
	borrower       *borrower // nil: this member borrows nothing
}

const (
	// recallWithin is what borrowers have to give back when they are asked.
	recallWithin = 50 * time.Millisecond
	// forgetWithin is what members have to forget a denial, which ends by then.
	forgetWithin = time.Duration(denialFor)
	// A denial is final when nothing is out any more, or after that time; what
	// waits for all slices is unavailable after it.
	recallBudget = 150 * time.Millisecond
	// recallPause is how long to wait for what another caller has recalled; it
	// doubles.
	recallPause = 4 * time.Millisecond
)

func newRecalls(node *cluster.Node, tableName string, b *borrower) *recalls {
	r := &recalls{node: node, recall: "lease:" + tableName, forget: "denial:" + tableName, borrower: b}
	if b == nil {
		return r
	}
	node.Handle(r.recall, func(_ context.Context, _ cluster.Member, key []byte) ([]byte, error) {
		if !b.running.begin() {
			return nil, ErrClosed // it gives everything back anyway
		}
		defer b.running.end()
		b.recall(key)
		return nil, nil
	})
	node.Handle(r.forget, func(_ context.Context, _ cluster.Member, key []byte) ([]byte, error) {
		if len(key) == 0 {
			b.denials.forgetAll()
		} else {
			b.forget(key)
		}
		return nil, nil
	})
	return r
}

func (r *recalls) close() {
	if r.borrower != nil {
		r.node.Handle(r.recall, nil)
		r.node.Handle(r.forget, nil)
		r.borrower.close()
	}
}

// do runs an operation at the key's holder. Where slices are in its way it
// recalls them, if the holder says so, and runs it again.
func (l *Limiter) do(ctx context.Context, key []byte, o op) (result, error) {
	res, err := l.table.Do(ctx, key, o)
	if err != nil || res.out == nil {
		return res, err
	}
	return l.doAgain(ctx, key, o, res)
}

// doAgain goes on where an operation met slices: res is its first answer.
func (l *Limiter) doAgain(ctx context.Context, callers []byte, o op, res result) (result, error) {
	if l.recalls == nil {
		return res, nil
	}
	key := bytes.Clone(callers) // so that theirs need not be on the heap
	ctx, cancel := context.WithTimeout(ctx, recallBudget)
	defer cancel()
	pause := recallPause
	for ctx.Err() == nil {
		home := time.Duration(res.out.home)
		if len(res.out.borrowers) > 0 {
			l.recalls.all(ctx, key, res.out.borrowers, min(home, recallWithin))
		} else {
			sleep(ctx, min(home, pause))
			pause *= 2
		}
		next, err := l.table.Do(ctx, key, o)
		if err != nil {
			break // the first answer counts, if it was one
		}
		if next.out == nil {
			return next, nil
		}
		res = next
	}
	if res.flags&resultNotRun != 0 {
		return res, fmt.Errorf("%w: permits are lent", cluster.ErrUnavailable)
	}
	return res, nil
}

// all asks borrowers to give back what they were lent of key, and returns when
// they have or the time is over.
func (r *recalls) all(ctx context.Context, key []byte, borrowers []uint64, within time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var asked sync.WaitGroup
	for _, boot := range borrowers {
		asked.Go(func() {
			// One that can't be told stops by itself.
			_, _ = r.node.Call(ctx, cluster.Member{Boot: boot}, r.recall, key)
		})
	}
	asked.Wait()
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// forgetDenials has all members forget what they remember of key; of all keys
// where it is empty. One that can't be told forgets by itself, within 250 ms.
func (l *Limiter) forgetDenials(ctx context.Context, key []byte) {
	if l.recalls == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, forgetWithin)
	defer cancel()
	l.recalls.node.Broadcast(ctx, l.recalls.forget, key)
}
