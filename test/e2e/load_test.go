package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// LoadOptions say what a Load sends.
type LoadOptions struct {
	// Body returns the body of the nth check of the load, n from 0.
	Body func(n uint64) []byte
	// Ask sends it; [Member.Check] unless given.
	Ask func(m *Member, ctx context.Context, body []byte) (Decision, error)
	// Callers is how many requests are under way at each member; 4 unless given.
	Callers int
	// Pause is how long a caller rests between two requests; 0 not at all.
	Pause time.Duration
	// Timeout is how long a caller waits for an answer; 10 s unless given.
	Timeout time.Duration
}

// Load asks every member of a cluster all the time, over connections that are
// kept, and remembers every call. Members may be added to it and taken away
// while it runs.
//
//	load := StartLoad(t, cluster.Members(), LoadOptions{Body: …})
//	load.Expect(m)   // m is about to be killed: errors of calls to it are no failures
//	m.Kill()
//	load.Add(another)
//	load.Retire(another) // before it is asked to leave
//	report := load.Stop()
type Load struct {
	t       testing.TB
	options LoadOptions
	n       atomic.Uint64
	sent    atomic.Int64
	ended   atomic.Int64
	wait    sync.WaitGroup

	mu      sync.Mutex
	targets map[*Member]*target // guarded by mu
	calls   []*[]Call           // guarded by mu: one slice a caller, its own until it ends
	stopped bool                // guarded by mu
}

// target is a member that is asked.
type target struct {
	stop     chan struct{} // closed: no more calls
	stopping sync.Once
	doomed   atomic.Bool // errors are expected
	callers  sync.WaitGroup
}

// Outcome is what became of a call.
type Outcome uint8

const (
	Allowed Outcome = iota
	Denied
	Failed   // an error: of the connection, or a status that is neither 200 nor 429
	Expected // an error of a member that was about to be killed
)

// Call is one request of a Load.
type Call struct {
	Member   *Member
	N        uint64 // which of the load's checks it was
	Start    time.Time
	Took     time.Duration
	Outcome  Outcome
	Degraded bool
	Err      error // for Failed and Expected
}

// Span is when the call was under way.
func (c Call) Span() Span { return Span{c.Start, c.Start.Add(c.Took)} }

func (c Call) String() string {
	outcome := [...]string{"allowed", "denied", "failed", "failed as expected"}[c.Outcome]
	text := fmt.Sprintf("call %d to %s at %s took %s: %s", c.N, c.Member.Name,
		c.Start.Format("15:04:05.000"), c.Took.Round(time.Microsecond), outcome)
	if c.Err != nil {
		text += ": " + c.Err.Error()
	}
	return text
}

// StartLoad begins to ask members. The load stops with the test at the latest.
func StartLoad(t testing.TB, members []*Member, o LoadOptions) *Load {
	t.Helper()
	if o.Callers == 0 {
		o.Callers = 4
	}
	if o.Ask == nil {
		o.Ask = (*Member).Check
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	l := &Load{t: t, options: o, targets: map[*Member]*target{}}
	for _, m := range members {
		l.Add(m)
	}
	t.Cleanup(func() { l.Stop() })
	return l
}

// Add begins to ask one more member.
func (l *Load) Add(m *Member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	to := &target{stop: make(chan struct{})}
	l.targets[m] = to
	for range l.options.Callers {
		calls := new([]Call)
		l.calls = append(l.calls, calls)
		to.callers.Add(1)
		l.wait.Go(func() {
			defer to.callers.Done()
			l.call(m, to, calls)
		})
	}
}

// call is one caller.
func (l *Load) call(m *Member, to *target, calls *[]Call) {
	for {
		select {
		case <-to.stop:
			return
		default:
		}
		n := l.n.Add(1) - 1
		l.sent.Add(1)
		call := l.one(m, to, n)
		l.ended.Add(1)
		*calls = append(*calls, call)
		if call.Outcome == Expected {
			return // it is gone
		}
		if l.options.Pause > 0 {
			select {
			case <-to.stop:
				return
			case <-time.After(l.options.Pause):
			}
		}
	}
}

func (l *Load) one(m *Member, to *target, n uint64) Call {
	ctx, cancel := context.WithTimeout(context.Background(), l.options.Timeout)
	defer cancel()
	body := l.options.Body(n)
	call := Call{Member: m, N: n, Start: time.Now()}
	d, err := l.options.Ask(m, ctx, body)
	call.Took = time.Since(call.Start)
	call.Degraded = d.Degraded
	switch {
	case err != nil && to.doomed.Load() && connectionLost(err):
		call.Outcome, call.Err = Expected, err
	case err != nil:
		call.Outcome, call.Err = Failed, err
	case d.Allowed:
		call.Outcome = Allowed
	default:
		call.Outcome = Denied
	}
	return call
}

// connectionLost reports whether an error is what a killed process leaves: its
// kernel resets connections and refuses new ones.
func connectionLost(err error) bool {
	var op *net.OpError
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, syscall.EPIPE) || errors.As(err, &op) || strings.Contains(err.Error(), "EOF") ||
		errors.Is(err, context.DeadlineExceeded)
}

func (l *Load) target(m *Member) *target {
	l.mu.Lock()
	defer l.mu.Unlock()
	to := l.targets[m]
	if to == nil {
		l.t.Errorf("the load does not ask %s", m.Name)
		to = &target{stop: make(chan struct{})}
	}
	return to
}

// Expect says that m is about to be killed, or cut off: calls to it may lose
// their connection, and the callers that see it stop.
func (l *Load) Expect(m *Member) { l.target(m).doomed.Store(true) }

// Retire ends the calls to m: the ones under way are waited for, as a load
// balancer does before it lets a process be stopped.
func (l *Load) Retire(m *Member) {
	to := l.target(m)
	to.stopping.Do(func() { close(to.stop) })
	to.callers.Wait()
}

// Ended is how many calls have come to an end.
func (l *Load) Ended() int64 { return l.ended.Load() }

// Sent is how many calls have begun. The calls that a fault may have hit are
// Sent after it less Ended before it.
func (l *Load) Sent() int64 { return l.sent.Load() }

// AwaitEnded waits until n more calls have come to an end.
func (l *Load) AwaitEnded(n int64) {
	l.t.Helper()
	goal := l.Ended() + n
	Eventually(l.t, time.Minute, func() error {
		if now := l.Ended(); now < goal {
			return fmt.Errorf("%d more calls of the load to come", goal-now)
		}
		return nil
	})
}

// Stop ends the load and returns what it saw. A second call returns the same.
func (l *Load) Stop() *LoadReport {
	l.mu.Lock()
	l.stopped = true
	for _, to := range l.targets {
		to.stopping.Do(func() { close(to.stop) })
	}
	l.mu.Unlock()
	l.wait.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	report := &LoadReport{}
	for _, calls := range l.calls {
		report.Calls = append(report.Calls, *calls...)
	}
	slices.SortFunc(report.Calls, func(a, b Call) int { return a.Start.Compare(b.Start) })
	return report
}

// LoadReport is every call of a load, in the order in which they began.
type LoadReport struct{ Calls []Call }

// Counts sums the outcomes up. Expected failures are not among the errors.
func (r *LoadReport) Counts() (c Counts) {
	for i := range r.Calls {
		call := &r.Calls[i]
		c.Sent++
		switch call.Outcome {
		case Allowed:
			c.Allowed++
		case Denied:
			c.Denied++
		case Failed:
			c.Errors++
		}
		if call.Degraded {
			c.Degraded++
		}
	}
	return c
}

// ExpectedFailures is how many calls were lost with a member.
func (r *LoadReport) ExpectedFailures() (n int64) {
	for i := range r.Calls {
		if r.Calls[i].Outcome == Expected {
			n++
		}
	}
	return n
}

// Failures returns the calls that failed and should not have.
func (r *LoadReport) Failures() (failures []Call) {
	for _, c := range r.Calls {
		if c.Outcome == Failed {
			failures = append(failures, c)
		}
	}
	return failures
}

// AllowedBetween is how many calls were allowed that began in s.
func (r *LoadReport) AllowedBetween(s Span) (n int64) {
	for i := range r.Calls {
		if c := &r.Calls[i]; c.Outcome == Allowed && !c.Start.Before(s.Start) && c.Start.Before(s.End) {
			n++
		}
	}
	return n
}

// Slowest returns the call that took longest, but for those of a killed member.
func (r *LoadReport) Slowest() (slowest Call) {
	for _, c := range r.Calls {
		if c.Outcome != Expected && c.Took > slowest.Took {
			slowest = c
		}
	}
	return slowest
}

// Percentile returns how long the fastest share of the calls took at most;
// share is from 0 to 1.
func (r *LoadReport) Percentile(share float64) time.Duration {
	var took []time.Duration
	for i := range r.Calls {
		if r.Calls[i].Outcome != Expected {
			took = append(took, r.Calls[i].Took)
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[min(int(share*float64(len(took))), len(took)-1)]
}

// Slow returns the calls that took longer than limit at a time when the machine
// was not stalled.
func (r *LoadReport) Slow(limit time.Duration, control *Control) (slow []Call) {
	for _, c := range r.Calls {
		if c.Outcome != Expected && c.Took > limit && !control.Excuses(c.Span()) {
			slow = append(slow, c)
		}
	}
	return slow
}

// slowCall is how long a call may take, whatever happens to other members.
const slowCall = 250 * time.Millisecond

// Require ends the test's innocence where a call failed, was decided degraded,
// or took longer than 250 ms without the machine's being to blame, and logs the
// figures.
func (r *LoadReport) Require(t testing.TB, control *Control) {
	t.Helper()
	counts := r.Counts()
	t.Logf("%v; %d lost with a killed member", counts, r.ExpectedFailures())
	t.Logf("p50 %s, p99 %s, the slowest %v", r.Percentile(0.5), r.Percentile(0.99), r.Slowest())
	t.Log(control.Summary())
	for i, c := range r.Failures() {
		if i == 10 {
			t.Errorf("… and %d more", counts.Errors-10)
			break
		}
		t.Error(c)
	}
	if counts.Degraded > 0 {
		t.Errorf("%d decisions were degraded", counts.Degraded)
	}
	for i, c := range r.Slow(slowCall, control) {
		if i == 10 {
			t.Error("… and more")
			break
		}
		t.Errorf("slower than %s while the machine was well: %v", slowCall, c)
	}
}
