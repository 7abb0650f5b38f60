package e2e

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// apart are limits of which each side of a split uses some.
type apart struct {
	checks []Check
	before []int64 // used by all before the split
	ours   []int64 // used by the larger side during it
	theirs []int64
	reset  []bool // the larger side has reset it first, so what the smaller one knows is of before
}

const apartLimit = 1000

func newApart(n int) *apart {
	a := &apart{}
	for i := range n {
		a.checks = append(a.checks, Check{Key: fmt.Sprintf("apart:%d", i), Limit: apartLimit, Period: "24h",
			Algorithm: [...]string{"fixed-window", "token-bucket", "sliding-window"}[i%3]})
		a.before = append(a.before, int64(1+i%50))
		a.ours = append(a.ours, int64(10+i*7%100)) // more than a bucket of them drips in the longest split: full again, it forgets that it was reset
		a.theirs = append(a.theirs, int64(i*13%100))
		a.reset = append(a.reset, i%10 == 9)
	}
	return a
}

// use spends n[i] of the ith limit, and requires that each member asked may.
func (a *apart) use(t testing.TB, members []*Member, n []int64) {
	t.Helper()
	var checks []Check
	for i, check := range a.checks {
		if check.Cost = n[i]; n[i] > 0 {
			checks = append(checks, check)
		}
	}
	decisions, err := each(members, checkPath, checks)
	require.NoError(t, err)
	bad := 0
	for i, d := range decisions {
		if !d.Allowed || d.Degraded {
			if bad++; bad <= 5 {
				t.Errorf("%s, cost %d: %+v", checks[i].Key, checks[i].Cost, d)
			}
		}
	}
	if bad > 5 {
		t.Errorf("… and %d more", bad-5)
	}
}

// want is what should be used of the ith limit once the sides have joined: what
// came after a reset, or the larger count; or, of a window, what the smaller side
// used, if that had nobody who knew of the limit and so began it anew: a later
// window wins. A bucket has been refilled by some of it meanwhile.
func (a *apart) want(i int, anew bool) int64 {
	ours, theirs := a.before[i]+a.ours[i], a.theirs[i]
	switch {
	case a.reset[i]:
		return a.ours[i]
	case !anew:
		return a.before[i] + max(a.ours[i], a.theirs[i])
	case a.checks[i].Algorithm != "token-bucket" && theirs > 0:
		return theirs
	default:
		return max(ours, theirs)
	}
}

// refilled is what the ith limit may have got back in so long: a bucket of a
// day drips all the time, a window does not.
func (a *apart) refilled(i int, in time.Duration) int64 {
	if a.checks[i].Algorithm != "token-bucket" {
		return 0
	}
	return int64(math.Ceil(apartLimit * in.Hours() / 24))
}

// A network that is cut in two: each side answers by itself all the time, and
// when the cut has healed there is one cluster within 10 s that remembers what
// either side used.
//
// Of a limit whose holder and backup are both on the other side nobody on this
// one knows anything. Until they count as dead it is decided by the failure mode;
// then it starts anew.
func TestBothSidesOfASplitGoOn(t *testing.T) {
	needSoak(t, soakFull)
	lengths := []time.Duration{10 * time.Second}
	if soak(t) == soakFull {
		lengths = append(lengths, time.Minute, 5*time.Minute)
	}
	for _, length := range lengths {
		t.Run(fmt.Sprint(length), func(t *testing.T) { splitFor(t, length) })
	}
}

func splitFor(t *testing.T, length time.Duration) {
	network := NewNetwork(t, 3)
	secret := secretFile(t, oneSecret)
	s := newScene(t, sceneOptions{Counters: halfUsed, Defaults: MemberOptions{Args: []string{"--secret-file=" + secret}},
		Start: func(c *Cluster) {
			for _, host := range network.Hosts {
				o := c.Options()
				o.Host = host
				c.Launch(o).AwaitReady()
			}
			c.AwaitOneRing(startTimeout)
		}})
	members := s.cluster.Members()
	a := newApart(600)
	a.use(t, members, a.before)
	s.Rest(200 * time.Millisecond)

	var deaf Span // from the cut until the single member can decide everything
	ring := ringOf(t, members[0])
	s.mayDegrade = func(call *Call) bool {
		return call.Member == members[2] && deaf.Overlaps(call.Span()) &&
			ring.role(call.Member.Name, s.hot.checks[s.hot.index(call.N)].Key) == "neither"
	}
	begun := time.Now()
	network.Partition(network.Hosts[:2], network.Hosts[2:])
	s.Rest(min(length/2, 3*time.Second))
	for i, check := range a.checks {
		if !a.reset[i] {
			continue
		}
		ctx, cancel := short()
		status, err := members[0].Ask(ctx, http.MethodDelete, "/v1/ratelimit/"+url.PathEscape(check.Key)+"?policy=default", nil, nil)
		cancel()
		require.NoError(t, err)
		require.Equal(t, http.StatusNoContent, status)
	}
	a.use(t, members[:2], a.ours)
	_, late := look(t, members[2:], a.checks)
	deaf = Span{begun, time.Now()}
	t.Logf("the single member could decide all limits %s after the cut, %d of %d of them not at once",
		time.Since(begun).Round(time.Millisecond), late, len(a.checks))
	a.use(t, members[2:], a.theirs)
	s.Rest(length - time.Since(begun))
	network.Heal()
	healed := time.Now()
	s.cluster.AwaitOneRing(10 * time.Second)
	t.Logf("one ring %s after the network had healed", time.Since(healed).Round(time.Millisecond))
	var wrong []string
	for deadline := healed.Add(10 * time.Second); ; { // the ring is there before the slots have been merged
		wrong = nil
		looked, _ := look(t, members, a.checks)
		for i, d := range looked {
			role := ring.role(members[2].Name, a.checks[i].Key)
			used, want := apartLimit-d.Remaining, a.want(i, role == "neither")
			if used > want || used < want-a.refilled(i, time.Since(begun)) {
				wrong = append(wrong, fmt.Sprintf("%s (slot %d, %s): used %d, not %d: before %d, then %d and %d, reset %t; the single member was its %s", a.checks[i].Key,
					slotOf(a.checks[i].Key), a.checks[i].Algorithm, used, want, a.before[i], a.ours[i], a.theirs[i], a.reset[i], role))
			}
		}
		if len(wrong) == 0 || time.Now().After(deadline) {
			break
		}
		s.Rest(50 * time.Millisecond)
	}
	for i, text := range wrong {
		if i == 30 {
			t.Errorf("… and %d more of %d", len(wrong)-30, len(a.checks))
			break
		}
		t.Error(text)
	}
	t.Logf("merged, or not, within %s", time.Since(healed).Round(time.Millisecond))
	s.Rest(time.Second)

	report := s.load.Stop()
	s.judgeCalls(report)
	// The sides may have given a permit each; but none may be lost.
	s.judge(s.hot, s.tallies(report, s.hot.index, len(s.hot.checks)), 0, false)
	s.counters.Verify(t, members, s.control, 0)
	for _, m := range members {
		answered := report.AnsweredBy(m, Span{begun, healed})
		t.Logf("%s answered %d calls during the split", m.Name, answered)
		assert.Greater(t, answered, int(length/(100*time.Millisecond)), m.Name)
	}
}

// AnsweredBy is how many calls to m were answered in s.
func (r *LoadReport) AnsweredBy(m *Member, s Span) (n int) {
	for i := range r.Calls {
		if c := &r.Calls[i]; c.Member == m && c.Outcome <= Denied && !c.Degraded && s.Overlaps(c.Span()) {
			n++
		}
	}
	return n
}
