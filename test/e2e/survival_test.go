package e2e

import (
	"cmp"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// scene is a cluster under constant load from every member, to which things
// happen. In the end it is asked whether every limit held, and whether any call
// noticed.
//
//	s := newScene(t, sceneOptions{Members: 3})
//	s.Kill(s.HolderOfMost())
//	s.Finish(1) // one take-over
type scene struct {
	t        testing.TB
	control  *Control
	cluster  *Cluster
	load     *Load
	hot      *hotKeys
	counters *Counters
	faults   []fault
	gone     []*Member // those that left

	// mayDegrade says of which calls nobody in reach can know what was used;
	// nil: of none.
	mayDegrade func(*Call) bool
}

type sceneOptions struct {
	Members     int
	Counters    int           // half-used ones beside the load
	Synchronous bool          // all limits of the load
	Defaults    MemberOptions // of the members
	Start       func(*Cluster)
	Small       int           // limits of a hundred that the load asks for; 400 unless given
	Callers     int           // of the load, at each member; 4 unless given
	Pause       time.Duration // of each caller between two requests; 5 ms unless given
}

// fault is something that was done to one member.
type fault struct {
	member *Member
	what   string
	at     Span // calls under way at some time of it may be lost, or late if they are to the member itself
	role   func(key string) string
}

// hotKeys are the limits that the load asks for, in turn.
type hotKeys struct {
	small, large int // how many there are of each size
	checks       []Check
	bodies       [][]byte
}

// newHotKeys makes limits of two sizes: a hundred, of which a holder may owe
// its backup one permit, and many, of which it may owe 1 %.
func newHotKeys(prefix string, small, large int, synchronous bool) *hotKeys {
	h := &hotKeys{small: small, large: large}
	for i := range small + large {
		check := Check{Key: fmt.Sprintf("%s:%d", prefix, i), Limit: 100, Period: "24h",
			Algorithm: [...]string{"fixed-window", "token-bucket"}[i%2], Synchronous: synchronous}
		if i >= small {
			check.Limit, check.Algorithm = 20_000, "fixed-window"
		}
		h.checks = append(h.checks, check)
		h.bodies = append(h.bodies, check.Body())
	}
	// Every other call is for a large one.
	return h
}

const smallKeys, largeKeys = 400, 20

// index is which limit the nth check is for: small and large ones in turn.
func (h *hotKeys) index(n uint64) int {
	if n%2 == 0 {
		return int(n / 2 % uint64(h.small))
	}
	return h.small + int(n/2%uint64(h.large))
}

// settle is how long a cluster is left alone where its state can't be asked
// for: until every slot has its copy.
const settle = 1500 * time.Millisecond

func newScene(t testing.TB, o sceneOptions) *scene {
	t.Helper()
	s := &scene{t: t, control: StartControl(t), hot: newHotKeys("hot", cmp.Or(o.Small, smallKeys), largeKeys, o.Synchronous)}
	if o.Start == nil {
		s.cluster = NewCluster(t, o.Members, o.Defaults)
	} else {
		s.cluster = NewCluster(t, 0, o.Defaults)
		o.Start(s.cluster)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.story()
		}
	})
	time.Sleep(settle)
	if o.Counters > 0 {
		s.counters = FillCounters(t, s.cluster.Members(), s.control, o.Counters)
	}
	s.load = StartLoad(t, s.cluster.Members(), LoadOptions{Callers: cmp.Or(o.Callers, 4), Pause: cmp.Or(o.Pause, 5*time.Millisecond),
		Body: func(n uint64) []byte { return s.hot.bodies[s.hot.index(n)] }})
	s.load.AwaitEnded(1000)
	return s
}

// Rest lets the load go on for a while.
func (s *scene) Rest(d time.Duration) { time.Sleep(d) }

// Join adds n members at once.
func (s *scene) Join(n int) {
	s.t.Helper()
	begun := time.Now()
	for _, m := range s.cluster.Add(n) {
		s.load.Add(m)
	}
	s.t.Logf("%d joined in %s", n, time.Since(begun).Round(time.Millisecond))
}

// Leave lets members leave, all at once.
func (s *scene) Leave(leavers ...*Member) {
	s.t.Helper()
	s.leave(leavers)
	s.cluster.AwaitOneRing(10 * time.Second)
}

func (s *scene) leave(leavers []*Member) {
	s.t.Helper()
	begun := time.Now()
	for _, m := range leavers {
		s.load.Retire(m)
		s.cluster.Forget(m)
		s.gone = append(s.gone, m)
	}
	for _, m := range leavers {
		m.Signal(syscall.SIGTERM)
	}
	for _, m := range leavers {
		m.AwaitExit(30 * time.Second)
		_, kept := findLine(m.Log(), []string{"drain: hand over"})
		if kept && m.command.Path != nodeBinary {
			// A copy that nobody knew of could keep one of the previous release;
			// it had handed over all that it held.
			s.t.Logf("%s, of the previous release, could not leave in time", m.Name)
			continue
		}
		require.Equal(s.t, 0, m.ExitCode(), "%s: exit code", m.Name)
		if kept {
			s.t.Errorf("%s left before it had handed everything over", m.Name)
		}
	}
	s.t.Logf("%s left in %s", names(leavers), time.Since(begun).Round(time.Millisecond))
}

// Restart lets members leave, all at once, and starts each again at the same
// addresses. It waits, as a deployment does, until they are ready.
func (s *scene) Restart(members ...*Member) {
	s.t.Helper()
	s.leave(members)
	var back []*Member
	for _, m := range members {
		back = append(back, s.cluster.Launch(s.again(m)))
	}
	for _, m := range back {
		m.AwaitReady()
		s.load.Add(m)
	}
}

// again are the options of a process that takes m's place.
func (s *scene) again(m *Member) MemberOptions {
	o := s.cluster.Options()
	o.Name, o.Host = m.Name, m.space
	o.Args = append(append([]string(nil), o.Args...), "--bind="+m.Gossip, "--peer-bind="+m.Peer, "--http="+m.HTTP)
	return o
}

// Kill ends m as a crash does.
func (s *scene) Kill(m *Member) {
	s.t.Helper()
	role := s.roles(m)
	s.load.Expect(m)
	s.cluster.Forget(m)
	at := Span{Start: time.Now()}
	m.Kill()
	at.End = time.Now()
	s.faults = append(s.faults, fault{m, "killed", at, role})
}

// Reborn kills m and starts it again, at the same addresses, after pause.
func (s *scene) Reborn(m *Member, pause time.Duration) {
	s.t.Helper()
	s.Kill(m)
	time.Sleep(pause)
	again := s.cluster.Launch(s.again(m))
	again.AwaitReady()
	s.load.Add(again)
	s.t.Logf("%s was back, ready, %s after it had been killed", m.Name,
		time.Since(s.faults[len(s.faults)-1].at.End).Round(time.Millisecond))
}

// Stall stops m for d.
func (s *scene) Stall(m *Member, d time.Duration) {
	s.t.Helper()
	role := s.roles(m)
	at := Span{Start: time.Now()}
	m.StallFor(d)
	// What m was asked in the meantime it begins only now.
	at.End = time.Now().Add(slowCall)
	s.faults = append(s.faults, fault{m, fmt.Sprintf("stopped for %s", d), at, role})
}

// roles tells what m is to keys, by the ring of now.
func (s *scene) roles(m *Member) func(key string) string {
	s.t.Helper()
	ring := ringOf(s.t, m)
	var mu sync.Mutex
	known := map[string]string{}
	return func(key string) string {
		mu.Lock()
		defer mu.Unlock()
		role, ok := known[key]
		if !ok {
			role = ring.role(m.Name, key)
			known[key] = role
		}
		return role
	}
}

// Finish ends the load and requires that every limit gave exactly what it
// should, but for what takeOvers of them may have cost, and that no call failed,
// was decided degraded, or took longer than 250 ms.
func (s *scene) Finish(takeOvers int) {
	s.t.Helper()
	report := s.load.Stop()
	s.judgeCalls(report)
	if n := s.surprises(); n > 0 {
		s.t.Logf("members that got no processor were taken over from: %d lines say so", n)
		takeOvers++
	}
	s.judgeCounts(report, takeOvers)
	if s.counters != nil {
		s.counters.Verify(s.t, s.cluster.Members(), s.control, takeOvers)
	}
	s.cluster.AwaitOneRing(10 * time.Second)
}

// surprises is how many take-overs members tell of, if the machine kept one from
// running: from that one slots are taken over as from one that is dead.
func (s *scene) surprises() (n int) {
	if len(s.control.Stalls()) == 0 {
		return 0
	}
	for _, m := range append(s.cluster.Members(), s.gone...) {
		n += strings.Count(m.Log(), "slot take-over")
	}
	return n
}

// excusedMost is the part of all calls for which the machine may be blamed.
const excusedMost = 0.05

// judgeCalls fails the test for calls that something was wrong with, unless they
// were to a member while that was killed or stopped, or at a time when the
// machine itself was stalled. Those are reported by number.
func (s *scene) judgeCalls(report *LoadReport) {
	s.t.Helper()
	var bad []string
	var faulty, noise, cutOff int
	var slowest Call
	for i := range report.Calls {
		call := &report.Calls[i]
		if call.Outcome == Expected {
			continue
		}
		ofFault := s.ofFault(call)
		if !ofFault && call.Took > slowest.Took {
			slowest = *call
		}
		if call.Outcome != Failed && !call.Degraded && call.Took <= slowCall {
			continue
		}
		switch {
		case ofFault:
			faulty++
		case call.Degraded && s.mayDegrade != nil && s.mayDegrade(call):
			cutOff++
		case s.control.Excuses(call.Span()):
			noise++
		default:
			what := call.String()
			if call.Degraded {
				what += ", degraded"
			}
			bad = append(bad, what+" for "+s.hot.checks[s.hot.index(call.N)].Key)
		}
	}
	s.t.Logf("%v; %d lost with a killed member, %d bad or late by a member while it was stopped, %d while the machine was stalled",
		report.Counts(), report.ExpectedFailures(), faulty, noise)
	if float64(noise) > excusedMost*float64(len(report.Calls)) {
		s.t.Errorf("the machine is too busy to tell anything by it")
	}
	if cutOff > 0 {
		s.t.Logf("%d calls were decided degraded, for all who knew were out of reach", cutOff)
	}
	s.t.Logf("p50 %s, p99 %s, the slowest of a member that was well: %v", report.Percentile(0.5), report.Percentile(0.99), slowest)
	s.t.Log(s.control.Summary())
	for i, call := range bad {
		if i == 10 {
			s.t.Errorf("… and %d more", len(bad)-10)
			break
		}
		s.t.Error(call)
	}
}

func (s *scene) ofFault(call *Call) bool {
	for _, f := range s.faults {
		if f.member == call.Member && f.at.Overlaps(call.Span()) {
			return true
		}
	}
	return false
}

// tally is what the load knows of one limit.
type tally struct {
	admitted  int64
	uncertain int64 // calls that may have cost a permit which nobody was told of
}

// inFlight reports whether a call was under way when something was done to a
// member, or was held up by that: until somebody has taken over it may have been
// sent more than once.
func (s *scene) inFlight(call *Call) bool {
	for _, f := range s.faults {
		held := Span{f.at.Start, f.at.End.Add(slowCall)}
		if f.at.Overlaps(call.Span()) || call.Took >= heldUp && held.Overlaps(call.Span()) {
			return true
		}
	}
	return false
}

// heldUp is longer than any call takes to which nothing happens.
const heldUp = 50 * time.Millisecond

// tallies sums the calls up by limit.
func (s *scene) tallies(report *LoadReport, index func(n uint64) int, limits int) []tally {
	all := make([]tally, limits)
	for i := range report.Calls {
		call := &report.Calls[i]
		k := index(call.N)
		if k < 0 {
			continue
		}
		switch {
		case call.Outcome == Allowed && !call.Degraded:
			all[k].admitted++
			fallthrough
		case call.Outcome == Denied && !call.Degraded:
			if s.inFlight(call) || call.Took >= heldUp && s.control.Excuses(call.Span()) {
				all[k].uncertain++
			}
		default:
			all[k].uncertain++
		}
	}
	return all
}

// judgeCounts spends what is left of every limit and compares.
func (s *scene) judgeCounts(report *LoadReport, takeOvers int) {
	s.t.Helper()
	s.judge(s.hot, s.tallies(report, s.hot.index, len(s.hot.checks)), takeOvers, true)
}

// judge compares what limits gave with what they should. Where exact is false
// more may have been given: by each side of a split.
func (s *scene) judge(keys *hotKeys, all []tally, takeOvers int, exact bool) {
	s.t.Helper()
	rest := s.spendRest(keys)
	var over, under, unknown, worst int64
	shown := 0
	for k, check := range keys.checks {
		if rest[k] < 0 {
			unknown++
			continue
		}
		given := all[k].admitted + rest[k]
		bound := check.Limit
		if !check.Synchronous {
			bound += int64(takeOvers) * max(1, check.Limit/100)
		}
		if given > check.Limit {
			over++
			worst = max(worst, given-check.Limit)
		}
		if given < check.Limit {
			under++
		}
		if (given > bound && exact) || given < check.Limit-all[k].uncertain {
			if shown++; shown <= 10 {
				s.t.Errorf("%s (slot %d, %s) gave %d of %d: the load got %d, with %d uncertain, and %d were left; at most %d allowed%s",
					check.Key, slotOf(check.Key), check.Algorithm, given, check.Limit, all[k].admitted, all[k].uncertain, rest[k], bound, s.rolesOf(check.Key))
			}
		}
	}
	if shown > 10 {
		s.t.Errorf("… and %d more", shown-10)
	}
	s.t.Logf("%d limits: %d gave more, at most by %d; %d gave less; %d unknown; %d take-overs",
		len(keys.checks), over, worst, under, unknown, takeOvers)
}

func (s *scene) rolesOf(key string) string {
	var text strings.Builder
	for _, f := range s.faults {
		if f.role != nil {
			fmt.Fprintf(&text, "; %s, %s, was its %s", f.member.Name, f.what, f.role(key))
		}
	}
	return text.String()
}

// spendRest spends what each limit has left, all at once, and makes sure that
// nothing more is to be had. -1 is for a limit of which that is unknown, because
// the machine stalled.
func (s *scene) spendRest(keys *hotKeys) []int64 {
	s.t.Helper()
	begun := time.Now()
	members := s.cluster.Members()
	looked, late := look(s.t, members, keys.checks)
	rest := make([]int64, len(keys.checks))
	var spend []Check
	var of []int
	for k, d := range looked {
		rest[k] = d.Remaining
		switch {
		case d.Degraded:
			rest[k] = -1
		case d.Remaining > 0:
			check := keys.checks[k]
			check.Cost = d.Remaining
			spend, of = append(spend, check), append(of, k)
		}
	}
	spent, err := each(members, checkPath, spend)
	require.NoError(s.t, err)
	for i, d := range spent {
		switch {
		case d.Degraded:
			rest[of[i]] = -1
		case !d.Allowed:
			s.t.Errorf("%s said that %d were left, and then denied them; %d are left", spend[i].Key, spend[i].Cost, d.Remaining)
		}
	}
	after, err := each(members, checkPath, keys.checks)
	require.NoError(s.t, err)
	for k, d := range after {
		switch {
		case d.Degraded:
			rest[k] = -1
		case d.Allowed && rest[k] >= 0:
			rest[k]++ // and it is counted as one too many
		}
	}
	unknown := 0
	for _, r := range rest {
		if r < 0 {
			unknown++
		}
	}
	if late+unknown > 0 && !s.control.Excuses(Span{begun, time.Now()}) {
		s.t.Errorf("%d looks and %d decisions were degraded after everything had happened", late, unknown)
	}
	return rest
}

// story shows what the members say happened to them.
func (s *scene) story() {
	for _, f := range s.faults {
		s.t.Logf("%s %s from %s to %s", f.member.Name, f.what, f.at.Start.Format("15:04:05.000"), f.at.End.Format("15:04:05.000"))
	}
	for _, stall := range s.control.Stalls() {
		s.t.Logf("the machine stalled from %s to %s", stall.Start.Format("15:04:05.000"), stall.End.Format("15:04:05.000"))
	}
	members := append(s.cluster.Members(), s.gone...)
	for _, f := range s.faults {
		members = append(members, f.member)
	}
	told := map[*Member]bool{}
	for _, m := range members {
		if told[m] {
			continue
		}
		told[m] = true
		shown := 0
		for line := range strings.Lines(m.Log()) {
			for _, words := range []string{"take-over", "split", "unprotected", "without a backup", "merged", "member lost", "hand over", "degraded", "panic"} {
				if strings.Contains(line, words) {
					if shown++; shown <= 40 {
						s.t.Logf("%s: %s", m.Name, strings.TrimSpace(line))
					}
					break
				}
			}
		}
	}
}

func names(members []*Member) string {
	var all []string
	for _, m := range members {
		all = append(all, m.Name)
	}
	return strings.Join(all, ", ")
}
