package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Joins, leaves, kills, stops and partitions at random, one at a time. Each is
// judged by limits of its own; half-used counters and the members' memory are
// looked at in the end.
//
// PEERLIMIT_SEED repeats a run, as far as the machine lets it.
func TestRandomFaultsLoseNothing(t *testing.T) {
	needSoak(t, soakFull)
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("PEERLIMIT_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("PEERLIMIT_SEED=%d", seed)
	c := newChaos(t, rand.New(rand.NewPCG(seed, 0)))
	begun := time.Now()
	done := map[string]int{}
	for i := range soak(t).of(0, 15, 100) {
		if t.Failed() {
			break // what follows is judged by what it has left behind
		}
		done[c.event(i)]++
	}
	t.Logf("%v in %s", done, time.Since(begun).Round(time.Second))
	c.finish()
}

// chaosMembers is how many members there are at the beginning and in the end.
const chaosMembers = 4

// chaosHosts bounds how many there are.
const chaosHosts = 6

type chaos struct {
	*scene
	random  *rand.Rand
	network *Network
	free    []*Host
	elder   *Member // it is never ended, so that what gathers in a process can be seen
	round   atomic.Int64
	rounds  roundsOf
	hots    []*hotKeys // by round
	asked   []int      // take-overs that a round's event may have caused; -1: a partition
	cuts    []cut

	goroutines int // of a member at rest
	heap       int // of the elder at rest, MiB
	rss        int // KiB
}

// cut is a partition of the network.
type cut struct {
	at   Span
	ring *ringView      // before it
	side map[string]int // by member
}

// severed reports whether the key's holder or its backup was on another side
// than the member. Each is one of two that are lost at once, so nobody takes
// over before the membership has noticed, and the failure mode decides.
func (c *cut) severed(member, key string) bool {
	rank := c.ring.rank(slotOf(key))
	return c.side[c.ring.names[rank[0]]] != c.side[member] || c.side[c.ring.names[rank[1]]] != c.side[member]
}

// roundsOf remembers in which round each call of the load was begun.
type roundsOf struct {
	mu sync.Mutex
	of []int32 // guarded by mu; by call, -1 if that was not begun
}

func (r *roundsOf) set(n uint64, round int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for uint64(len(r.of)) <= n {
		r.of = append(r.of, -1)
	}
	r.of[n] = int32(round)
}

const roundSmall, roundLarge = 60, 6

func newChaos(t testing.TB, random *rand.Rand) *chaos {
	t.Helper()
	c := &chaos{random: random, network: NewNetwork(t, chaosHosts)}
	c.free = append(c.free, c.network.Hosts...)
	secret := secretFile(t, oneSecret)
	c.scene = &scene{t: t, control: StartControl(t)}
	c.cluster = NewCluster(t, 0, MemberOptions{Args: []string{"--secret-file=" + secret},
		Env: []string{"GODEBUG=gctrace=1"}}) // the only way to see a heap from outside
	t.Cleanup(func() {
		if t.Failed() {
			c.story()
		}
	})
	for range chaosMembers + 1 {
		c.launch().AwaitReady()
	}
	c.cluster.AwaitOneRing(startTimeout)
	time.Sleep(settle)
	c.counters = FillCounters(t, c.cluster.Members(), c.control, halfUsed)
	c.rest()
	c.elder = c.cluster.Members()[0]
	c.heap, c.rss = c.heapOf(c.elder), rssOf(t, c.elder)
	// One member tells how many goroutines one has, by its last words.
	witness := c.cluster.Members()[chaosMembers]
	c.cluster.Forget(witness)
	c.free = append(c.free, witness.space)
	c.goroutines = goroutinesOf(witness)
	t.Logf("at rest with %d members: %d goroutines, %d MiB heap, %d KiB resident", chaosMembers+1, c.goroutines, c.heap, c.rss)
	c.cluster.AwaitOneRing(15 * time.Second)
	time.Sleep(settle)
	c.hots = append(c.hots, newHotKeys("round0", roundSmall, roundLarge, false))
	c.load = StartLoad(t, c.cluster.Members(), LoadOptions{Callers: 3, Pause: 4 * time.Millisecond, Body: c.body})
	return c
}

func (c *chaos) launch() *Member {
	o := c.cluster.Options()
	o.Host, c.free = c.free[0], c.free[1:]
	return c.cluster.Launch(o)
}

func (c *chaos) body(n uint64) []byte {
	round := c.round.Load()
	c.rounds.set(n, round)
	return c.hot(round).bodies[roundIndex(n)]
}

func (c *chaos) hot(round int64) *hotKeys {
	c.rounds.mu.Lock()
	defer c.rounds.mu.Unlock()
	return c.hots[round]
}

func roundIndex(n uint64) int {
	if n%2 == 0 {
		return int(n / 2 % roundSmall)
	}
	return roundSmall + int(n/2%roundLarge)
}

// event does one thing and waits until the members have got over it.
func (c *chaos) event(i int) (kind string) {
	c.t.Helper()
	// A round of its own, begun a little before, so that its limits are in use.
	c.rounds.mu.Lock()
	c.hots = append(c.hots, newHotKeys(fmt.Sprintf("round%d", i+1), roundSmall, roundLarge, false))
	c.rounds.mu.Unlock()
	c.round.Add(1)
	c.Rest(200 * time.Millisecond)
	members := c.cluster.Members()
	victim := members[1+c.random.IntN(len(members)-1)] // not the elder
	begun := time.Now()
	takeOvers := 0
	pick := c.random.IntN(6)
	switch {
	case len(members) <= 3:
		pick = 0
	case len(c.free) == 0 && pick == 0:
		pick = 1
	}
	switch pick {
	case 0:
		kind = "join"
		m := c.launch()
		m.AwaitReady()
		c.load.Add(m)
	case 1:
		kind = "leave"
		c.leave([]*Member{victim})
		c.free = append(c.free, victim.space)
	case 2:
		kind, takeOvers = "kill", 1
		c.Kill(victim)
		c.free = append(c.free, victim.space)
	case 3:
		kind, takeOvers = "kill and return", 1
		c.Reborn(victim, time.Duration(50+c.random.IntN(800))*time.Millisecond)
	case 4:
		kind, takeOvers = "stop", 1
		stopped := members[c.random.IntN(len(members))]
		c.Stall(stopped, time.Duration(50+c.random.IntN(2500))*time.Millisecond)
	case 5:
		kind, takeOvers = "partition", -1
		length := time.Duration(100+c.random.IntN(4000)) * time.Millisecond
		first := 1 + c.random.IntN(len(members)-1)
		order := c.random.Perm(len(members))
		var sides [2][]*Host
		parted := cut{ring: ringOf(c.t, members[0]), side: map[string]int{}}
		for at, m := range order {
			side := 0
			if at >= first {
				side = 1
			}
			parted.side[members[m].Name] = side
			sides[side] = append(sides[side], members[m].space)
		}
		c.network.Partition(sides[:]...)
		c.Rest(length)
		c.network.Heal()
		parted.at = Span{begun, time.Now().Add(settle)}
		c.cuts = append(c.cuts, parted)
	}
	did := time.Since(begun)
	c.cluster.AwaitOneRing(10 * time.Second)
	c.t.Logf("%d: %s with %d members took %s, one ring %s later", i+1, kind, len(members), did.Round(time.Millisecond), (time.Since(begun) - did).Round(time.Millisecond))
	c.asked = append(c.asked, takeOvers)
	c.Rest(500 * time.Millisecond) // for the slots to move and be copied
	if takeOvers < 0 {
		// A cut that was too short for the members to lose one another shows in
		// no ring, but the slots have been split all the same.
		c.Rest(settle)
	}
	return kind
}

// finish brings the members back to the number of the beginning, and judges.
func (c *chaos) finish() {
	c.t.Helper()
	for len(c.cluster.Members()) < chaosMembers+1 {
		m := c.launch()
		m.AwaitReady()
		c.load.Add(m)
	}
	for len(c.cluster.Members()) > chaosMembers+1 {
		members := c.cluster.Members()
		c.leave(members[len(members)-1:])
	}
	c.cluster.AwaitOneRing(10 * time.Second)
	time.Sleep(settle)
	report := c.load.Stop()
	c.scene.hot = c.hots[0] // for a call's text only
	c.judgeRounds(report)

	keys := c.keysHeld()
	time.Sleep(300 * time.Millisecond)
	for _, m := range c.cluster.Members() {
		ctx, cancel := short()
		n, err := m.Keys(ctx)
		cancel()
		require.NoError(c.t, err)
		assert.Equal(c.t, keys, n, "keys over all members, as %s counts them: each must be held once", m.Name)
	}
	c.counters.Verify(c.t, c.cluster.Members(), c.control, 0)
	c.rest()
	time.Sleep(time.Duration(soak(c.t).of(0, 5, 30)) * time.Second)
	heap, rss := c.heapOf(c.elder), rssOf(c.t, c.elder)
	goroutines := goroutinesOf(c.elder)
	c.t.Logf("the elder, at rest: %d goroutines, %d MiB heap, %d KiB resident", goroutines, heap, rss)
	assert.LessOrEqual(c.t, goroutines, c.goroutines+10, "goroutines")
	// gctrace rounds to whole MiB, and the rounds' limits are kept for a day.
	assert.LessOrEqual(c.t, float64(heap), 1.2*float64(c.heap)+2+float64(len(c.hots)*(roundSmall+roundLarge)*400>>20), "MiB of heap")
}

// keysHeld is how many keys there must be: each counter and each round's limits.
func (c *chaos) keysHeld() int {
	return halfUsed + len(c.hots)*(roundSmall+roundLarge)
}

// judgeRounds judges the calls, and the limits of each round by what was done in
// it.
func (c *chaos) judgeRounds(report *LoadReport) {
	c.t.Helper()
	c.scene.hot = newHotKeys("any", smallKeys, largeKeys, false)
	c.mayDegrade = func(call *Call) bool {
		key := c.hots[c.rounds.of[call.N]].checks[roundIndex(call.N)].Key
		return slices.ContainsFunc(c.cuts, func(parted cut) bool {
			return parted.at.Overlaps(call.Span()) && parted.severed(call.Member.Name, key)
		})
	}
	c.judgeCalls(report)
	for round, keys := range c.hots {
		index := func(n uint64) int {
			if n >= uint64(len(c.rounds.of)) || int(c.rounds.of[n]) != round {
				return -1
			}
			return roundIndex(n)
		}
		takeOvers := 0
		if round > 0 && round <= len(c.asked) {
			takeOvers = c.asked[round-1]
		}
		c.judge(keys, c.tallies(report, index, len(keys.checks)), max(takeOvers, 0), takeOvers >= 0)
	}
}

// rest closes the connections of the tests, which are goroutines of the members.
func (c *chaos) rest() {
	for _, m := range c.cluster.Members() {
		m.client.CloseIdleConnections()
	}
}

var collected = regexp.MustCompile(`(?m)^gc (\d+) @.* \d+->\d+->(\d+) MB`)

// heapOf is what a collection left of m's heap, in MiB. It makes the member
// work until it collects.
func (c *chaos) heapOf(m *Member) (mib int) {
	c.t.Helper()
	count := func() int { return len(collected.FindAllString(m.Log(), -1)) }
	before := count()
	Eventually(c.t, time.Minute, func() error {
		ctx, cancel := short()
		defer cancel()
		for range 50 {
			if _, err := m.View(ctx); err != nil {
				return err
			}
		}
		if now := count(); now < before+2 { // the first may have been under way
			return fmt.Errorf("%s has collected %d times", m.Name, now-before)
		}
		return nil
	})
	m.client.CloseIdleConnections()
	all := collected.FindAllStringSubmatch(m.Log(), -1)
	mib, err := strconv.Atoi(all[len(all)-1][2])
	require.NoError(c.t, err)
	return mib
}

// rssOf is m's resident memory in KiB, 0 where that is not to be had.
func rssOf(t testing.TB, m *Member) (kib int) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.PID()))
	if err != nil {
		return 0
	}
	_, rest, found := strings.Cut(string(status), "VmRSS:")
	if !found {
		return 0
	}
	_, err = fmt.Sscan(rest, &kib)
	require.NoError(t, err)
	return kib
}

// goroutinesOf ends m by SIGQUIT, upon which a Go program says where each of
// its goroutines is, and counts them.
func goroutinesOf(m *Member) int {
	m.t.Helper()
	m.Signal(syscall.SIGQUIT)
	m.AwaitExit(10 * time.Second)
	n := 0
	for line := range strings.Lines(m.Log()) {
		if strings.HasPrefix(line, "goroutine ") {
			n++
		}
	}
	return n
}
