package e2e

import (
	"testing"
	"time"
)

// halfUsed is how many half-used counters have to live through what a scene has.
const halfUsed = 10_000

// One joins, one leaves: no limit gives one too many or one too few, no counter
// is lost, and no call notices.
func TestJoinAndLeaveLoseNothing(t *testing.T) {
	needSoak(t, soakShort)
	s := newScene(t, sceneOptions{Members: 2, Counters: halfUsed / 5})
	s.Join(1)
	s.Rest(300 * time.Millisecond)
	s.Leave(s.cluster.Members()[0])
	s.Rest(300 * time.Millisecond)
	s.Finish(0)
}

func TestJoinsLoseNothing(t *testing.T) {
	needSoak(t, soakShort)
	t.Run("3 to 4 to 5", func(t *testing.T) {
		s := newScene(t, sceneOptions{Members: 3, Counters: halfUsed})
		s.Join(1)
		s.Rest(time.Second)
		s.Join(1)
		s.Rest(time.Second)
		s.Finish(0)
	})
	t.Run("3 to 6 at once", func(t *testing.T) {
		s := newScene(t, sceneOptions{Members: 3, Counters: halfUsed})
		s.Join(3)
		s.Rest(time.Second)
		s.Finish(0)
	})
}

func TestLeavesLoseNothing(t *testing.T) {
	needSoak(t, soakShort)
	t.Run("5 to 4 to 3", func(t *testing.T) {
		s := newScene(t, sceneOptions{Members: 5, Counters: halfUsed})
		for range 2 {
			s.Leave(s.cluster.Members()[1])
			s.Rest(time.Second)
		}
		s.Finish(0)
	})
	t.Run("6 to 4 at once", func(t *testing.T) {
		s := newScene(t, sceneOptions{Members: 6, Counters: halfUsed})
		members := s.cluster.Members()
		s.Leave(members[0], members[3])
		s.Rest(time.Second)
		s.Finish(0)
	})
}

// A deployment restarts member after member, without a pause, and then the next
// deployment does.
func TestRollingRestartsLoseNothing(t *testing.T) {
	needSoak(t, soakShort)
	t.Run("three, one by one, twice", func(t *testing.T) {
		s := newScene(t, sceneOptions{Members: 3, Counters: halfUsed})
		for range 2 {
			for _, m := range s.cluster.Members() {
				s.Restart(m)
			}
		}
		s.Rest(time.Second)
		s.Finish(0)
	})
	t.Run("six, two at a time", func(t *testing.T) {
		needSoak(t, soakFull)
		s := newScene(t, sceneOptions{Members: 6, Counters: halfUsed})
		members := s.cluster.Members()
		for i := 0; i < len(members); i += 2 {
			s.Restart(members[i], members[i+1])
		}
		s.Rest(time.Second)
		s.Finish(0)
	})
}
