package membership

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// JoinState says how far a member has come on its way into the cluster.
type JoinState uint8

// The states of joining. All but Joining and Refused mean that the member may
// serve.
const (
	Joining    JoinState = iota // seeds are being tried
	Refused                     // a seed turned this member away for its secret; it goes on trying
	Alone                       // there are no seeds
	Unanswered                  // no seed has answered for Config.JoinTimeout; it goes on trying
	InCluster                   // another member has been seen
)

// String returns the state in a few words.
func (s JoinState) String() string {
	switch s {
	case Joining:
		return "joining"
	case Refused:
		return "refused"
	case Alone:
		return "alone"
	case Unanswered:
		return "no seed answered"
	default:
		return "joined"
	}
}

// Pace of the joining.
const (
	firstRetry    = 100 * time.Millisecond // doubled from try to try until it may serve
	maxFirstRetry = time.Second
	fastRetry     = 300 * time.Millisecond // after a loss, and rising by half …
	slowRetry     = 3 * time.Second        // … to this
	resolveEvery  = 10 * time.Second       // once joined
	triesAtOnce   = 6                      // addresses tried in one round
	retryLostFor  = rememberFor            // how long the address of a lost member is tried
	strangerFor   = 10 * time.Second       // how long the address of a stranger is tried
	refusedFor    = 15 * time.Second       // how long a refusal counts if it is not repeated
	warnEvery     = time.Minute            // of the same failure at the same address
	maxWarned     = 256
)

// joiner brings a member into its cluster and brings the parts of a cluster
// that was split together again, for as long as it runs.
type joiner struct {
	join    func(netip.AddrPort) error // contacts one address
	table   *table
	seeds   *seedList
	own     ownAddresses
	timeout time.Duration
	log     *slog.Logger
	now     func() time.Time

	settled chan struct{} // closed when the member may serve
	nudge   chan struct{} // something has changed: try soon

	wg sync.WaitGroup // attempts under way

	mu        sync.Mutex // guards what follows
	state     JoinState
	reason    string
	answered  time.Time               // when a seed turned us away last; the start before that
	refusing  map[netip.AddrPort]bool // turned us away when they were tried last
	strangers map[netip.AddrPort]time.Time
	busy      map[netip.AddrPort]bool
	warned    map[string]time.Time
}

func newJoiner(timeout time.Duration, now func() time.Time) *joiner {
	return &joiner{
		timeout:   timeout,
		now:       now,
		settled:   make(chan struct{}),
		nudge:     make(chan struct{}, 1),
		answered:  now(),
		strangers: make(map[netip.AddrPort]time.Time),
		busy:      make(map[netip.AddrPort]bool),
		refusing:  make(map[netip.AddrPort]bool),
		warned:    make(map[string]time.Time),
	}
}

// run tries to join until ctx ends.
func (j *joiner) run(ctx context.Context) {
	defer j.wg.Wait()
	if len(j.seeds.all) == 0 {
		j.settle(Alone, "")
	}
	var (
		addrs    []netip.AddrPort
		resolved time.Time
		wait     = firstRetry
	)
	for ctx.Err() == nil {
		now := j.now()
		if len(j.seeds.all) > 0 && (!j.mayServe() || now.Sub(resolved) >= resolveEvery) {
			var failed []error
			addrs, failed = j.seeds.resolve(ctx)
			resolved = now
			for _, err := range failed {
				j.warn(err.Error(), "seed not resolved", "error", err)
			}
		}
		candidates, trying := j.candidates(addrs)
		for _, a := range candidates {
			j.try(a)
		}
		var pause time.Duration
		switch {
		case !j.mayServe():
			pause, wait = wait, min(2*wait, maxFirstRetry)
		case len(candidates) > 0 || trying:
			wait = max(wait, fastRetry)
			pause, wait = wait, min(wait+wait/2, slowRetry)
		default:
			pause, wait = resolveEvery, fastRetry
		}
		if j.pause(ctx, pause/2+rand.N(pause)) {
			wait = fastRetry
		}
		j.check()
	}
}

// pause waits, at most d, and tells whether it was nudged.
func (j *joiner) pause(ctx context.Context, d time.Duration) bool {
	if !j.mayServe() {
		j.mu.Lock()
		left := j.timeout - j.now().Sub(j.answered)
		j.mu.Unlock()
		// A refusal counts until the next try, so that comes in good time.
		d = min(d, max(left, time.Millisecond), max(j.timeout/3, time.Millisecond))
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-j.nudge:
		return true
	}
	return false
}

// poke makes the next round come soon.
func (j *joiner) poke() {
	select {
	case j.nudge <- struct{}{}:
	default:
	}
}

// candidates picks some of the addresses where a member may be that is not in
// the list: seeds, lost members and strangers, without this member itself and
// those that are being tried. It also tells whether there are such.
func (j *joiner) candidates(seeds []netip.AddrPort) (out []netip.AddrPort, trying bool) {
	now := j.now()
	lost := j.table.list(func(m Member) bool {
		return m.State == Dead && m.Gossip.IsValid() && now.Sub(m.Since) < retryLostFor
	})
	skip := make(map[netip.AddrPort]bool)
	for _, m := range j.table.list(func(m Member) bool { return m.State.Live() }) {
		skip[m.Gossip] = true
	}
	own := j.own.filter()

	j.mu.Lock()
	defer j.mu.Unlock()
	for a := range j.busy {
		skip[a] = true
	}
	add := func(a netip.AddrPort) {
		if !skip[a] && !own(a) {
			skip[a] = true
			out = append(out, a)
		}
	}
	for a, since := range j.strangers {
		if now.Sub(since) > strangerFor {
			delete(j.strangers, a)
			continue
		}
		add(a)
	}
	rand.Shuffle(len(seeds), func(a, b int) { seeds[a], seeds[b] = seeds[b], seeds[a] })
	rand.Shuffle(len(lost), func(a, b int) { lost[a], lost[b] = lost[b], lost[a] })
	// By turns, so that many addresses of one kind don't crowd out the other.
	for i := range max(len(seeds), len(lost)) {
		if i < len(seeds) {
			add(seeds[i])
		}
		if i < len(lost) {
			add(lost[i].Gossip)
		}
		if len(out) >= triesAtOnce {
			break
		}
	}
	return out, len(j.busy) > 0
}

// stranger notes an address at which a member seems to be that doesn't know
// this one.
func (j *joiner) stranger(addr string) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return
	}
	a = netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, known := j.strangers[a]; known || len(j.strangers) >= triesAtOnce {
		return
	}
	j.strangers[a] = j.now()
	j.poke()
}

// try contacts an address in the background.
func (j *joiner) try(a netip.AddrPort) {
	j.mu.Lock()
	j.busy[a] = true
	j.mu.Unlock()
	j.wg.Go(func() {
		err := j.join(a)
		j.mu.Lock()
		delete(j.busy, a)
		if err == nil {
			delete(j.strangers, a)
		}
		if err == nil || refusal(err.Error()) == "" {
			j.relentLocked(a)
		}
		j.mu.Unlock()
		if err != nil {
			j.failed(a, err)
		}
		j.check()
	})
}

// failed tells why an attempt failed, where the operator can do something.
func (j *joiner) failed(a netip.AddrPort, err error) {
	text := err.Error()
	switch {
	case refusal(text) != "":
		reason := fmt.Sprintf("the member at %s has another secret", a)
		j.mu.Lock()
		if !j.servesLocked() {
			j.state, j.reason, j.answered = Refused, reason, j.now()
			j.refusing[a] = true
		}
		j.mu.Unlock()
		j.warn("secret "+a.String(), "join refused", "addr", a.String(), "reason", "that member has another secret")
	case strings.Contains(text, "EOF"), strings.Contains(text, "connection reset"):
		j.warn("closed "+a.String(), "join failed", "addr", a.String(),
			"reason", "it closed the connection: it may be of another cluster, or no member at all")
	default:
		j.log.Debug("join failed", "addr", a.String(), "error", err)
	}
}

// relentLocked notes that an address does not turn this member away any more.
func (j *joiner) relentLocked(a netip.AddrPort) {
	delete(j.refusing, a)
	if j.state == Refused && len(j.refusing) == 0 {
		j.state, j.reason = Joining, ""
	}
}

// warn logs, but not the same within warnEvery.
func (j *joiner) warn(key, msg string, args ...any) {
	now := j.now()
	j.mu.Lock()
	last, seen := j.warned[key]
	say := !seen || now.Sub(last) >= warnEvery
	if say {
		if len(j.warned) >= maxWarned {
			clear(j.warned)
		}
		j.warned[key] = now
	}
	j.mu.Unlock()
	if say {
		j.log.Warn(msg, args...)
	}
}

// check settles the state once another member is seen, or nobody has answered
// for long enough.
func (j *joiner) check() {
	if !j.table.alone() {
		j.settle(InCluster, "")
		return
	}
	j.mu.Lock()
	silent := j.now().Sub(j.answered)
	late := j.state == Joining && silent >= j.timeout ||
		j.state == Refused && silent >= max(j.timeout, refusedFor)
	j.mu.Unlock()
	if late {
		j.settle(Unanswered, "")
	}
}

func (j *joiner) settle(s JoinState, reason string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	served := j.servesLocked()
	if j.state != InCluster {
		j.state, j.reason = s, reason
	}
	if !served {
		close(j.settled)
	}
}

func (j *joiner) servesLocked() bool { return j.state != Joining && j.state != Refused }

func (j *joiner) mayServe() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.servesLocked()
}

func (j *joiner) status() (JoinState, string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state, j.reason
}
