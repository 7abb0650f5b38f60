package e2e

import (
	"testing"
	"time"
)

// A deployment with surge replaces all members, some at a time: new ones are
// started, and when they are ready as many old ones are told to leave. So for a
// while there are more members than usual, all of them asked all the time, for
// limits that are spent and for such as are not.
//
// The load is light, some hundred calls a second, for the processes share the
// processors: members hear from each other every 30 ms, so 15 of them, which is
// what 12 become, send 7,000 messages a second when they are at rest, and a
// member that starts makes each of them rebuild its ring.
func TestRolloutsLoseNothing(t *testing.T) {
	needSoak(t, soakShort)
	rollOut := func(t *testing.T, members, atATime int, pause time.Duration) {
		s := newScene(t, sceneOptions{Members: members, Counters: halfUsed, Small: 20, Callers: 1, Pause: pause})
		s.SpendSmall()
		for old := s.cluster.Members(); len(old) > 0; old = old[atATime:] {
			s.Surge(s.cluster.Options, old[:atATime])
		}
		s.Rest(time.Second)
		s.Finish(0)
	}
	t.Run("six, three at a time", func(t *testing.T) { rollOut(t, 6, 3, 15*time.Millisecond) })
	t.Run("twelve, three at a time", func(t *testing.T) {
		needSoak(t, soakFull)
		rollOut(t, 12, 3, 30*time.Millisecond)
	})
}

// SpendSmall lets the load go on until the limits of a hundred are spent.
func (s *scene) SpendSmall() {
	s.t.Helper()
	s.load.AwaitEnded(int64(2 * 100 * s.hot.small)) // every other call is for one of them
}

// Surge starts as many members as there are old ones, waits, as a deployment
// does, until they are ready, and lets the old ones leave.
func (s *scene) Surge(options func() MemberOptions, old []*Member) {
	s.t.Helper()
	begun := time.Now()
	all := make([]MemberOptions, len(old))
	for i := range all {
		all[i] = options() // all with the seeds of before
	}
	var added []*Member
	for _, o := range all {
		added = append(added, s.cluster.Launch(o))
	}
	for _, m := range added {
		m.AwaitReady()
		s.load.Add(m)
	}
	s.t.Logf("%s ready after %s", names(added), time.Since(begun).Round(time.Millisecond))
	s.leave(old)
}
