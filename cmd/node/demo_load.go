package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// demoCallers is how many requests are under way at each member.
const demoCallers = 32

// demoLoad is one round: requests for one key, from all members at once.
type demoLoad struct {
	name        string
	total       int
	limit       int
	synchronous bool
	spread      time.Duration // 0: as fast as it goes
	key         string

	members []*demoMember
	counts  []demoCounts // one a member
	next    atomic.Int64 // requests begun, of all members
	allowed atomic.Int64

	failed sync.Once
	reason error // why the first request failed that should not have
}

type demoCounts struct{ sent, answered, allowed, denied, errors atomic.Int64 }

func newDemoLoad(members []*demoMember, name, key string) *demoLoad {
	return &demoLoad{name: name, key: key, total: 3000, limit: 1000,
		members: members, counts: make([]demoCounts, len(members))}
}

func (l *demoLoad) sent() (n int) {
	for i := range l.counts {
		n += int(l.counts[i].sent.Load())
	}
	return n
}

// answered is how many requests have come to an end, with an error or without.
func (l *demoLoad) answered() (n int) {
	for i := range l.counts {
		n += int(l.counts[i].answered.Load())
	}
	return n
}

func (l *demoLoad) errorsOf(m *demoMember) int {
	for i := range l.members {
		if l.members[i] == m {
			return int(l.counts[i].errors.Load())
		}
	}
	return 0
}

// failure is nil when every request to a member that lives was decided by who
// may decide it. It is known once run has returned.
func (l *demoLoad) failure() error { return l.reason }

func (l *demoLoad) totals() demoRound {
	round := demoRound{Name: l.name, Limit: l.limit}
	for i := range l.counts {
		round.Sent += int(l.counts[i].sent.Load())
		round.Allowed += int(l.counts[i].allowed.Load())
		round.Denied += int(l.counts[i].denied.Load())
		round.Errors += int(l.counts[i].errors.Load())
	}
	return round
}

// run sends all requests and returns what they came to. Where strike is not
// nil, it is called once, when half of the limit is used.
func (l *demoLoad) run(ctx context.Context, strike func() error) demoRound {
	body := l.body()
	half := make(chan struct{}, 1)
	start := time.Now()
	var callers, striker sync.WaitGroup
	stop := make(chan struct{})
	if strike != nil {
		striker.Go(func() {
			select {
			case <-half:
				if err := strike(); err != nil {
					l.fail(err)
				}
			case <-stop:
			}
		})
	}
	for i := range l.members {
		for range demoCallers {
			callers.Go(func() {
				for {
					n := l.next.Add(1)
					if n > int64(l.total) || !l.due(ctx, start, n) {
						return
					}
					if l.ask(ctx, l.claim(i), body) == int64(l.limit/2) {
						half <- struct{}{}
					}
				}
			})
		}
	}
	callers.Wait()
	close(stop)
	striker.Wait()
	return l.totals()
}

// due waits until the nth request may be sent.
func (l *demoLoad) due(ctx context.Context, start time.Time, n int64) bool {
	if l.spread > 0 {
		select {
		case <-time.After(time.Until(start.Add(l.spread * time.Duration(n) / time.Duration(l.total)))):
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// claim chooses the member to send to and counts the request as sent: member i
// or, where that was killed, the next one that was not, as any client with
// several addresses does. It counts before it looks, so that whoever kills a
// member and then counts has seen every request that the member may have got.
func (l *demoLoad) claim(i int) int {
	for {
		l.counts[i].sent.Add(1)
		if !l.members[i].killed.Load() {
			return i
		}
		l.counts[i].sent.Add(-1)
		i = (i + 1) % len(l.members)
	}
}

func (l *demoLoad) body() []byte {
	body, err := json.Marshal(map[string]any{
		"key": l.key, "policy": "demo", "limit": l.limit, "period": "1h",
		"algorithm": "fixed-window", "synchronous": l.synchronous,
	})
	if err != nil { // a map of plain values
		panic(err)
	}
	return body
}

// ask sends one request to member i, which claim has chosen. Where it was allowed, the number of those
// that were is returned.
func (l *demoLoad) ask(ctx context.Context, i int, body []byte) int64 {
	counts := &l.counts[i]
	answer, _, err := l.members[i].client.do(ctx, http.MethodPost, "/v1/ratelimit/check", body,
		http.StatusOK, http.StatusTooManyRequests)
	counts.answered.Add(1)
	var d decision
	if err == nil {
		err = json.Unmarshal(answer, &d)
	}
	if err == nil && d.Degraded {
		l.fail(fmt.Errorf("%s decided by itself: %s", l.members[i].name, d.Reason))
	}
	switch {
	case err != nil:
		counts.errors.Add(1)
		if !l.members[i].killed.Load() { // of that one, errors are expected
			l.fail(fmt.Errorf("%s: %w", l.members[i].name, err))
		}
	case d.Allowed:
		counts.allowed.Add(1)
		return l.allowed.Add(1)
	default:
		counts.denied.Add(1)
	}
	return 0
}

func (l *demoLoad) fail(err error) { l.failed.Do(func() { l.reason = err }) }
