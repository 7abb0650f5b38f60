package e2e

import (
	"testing"
	"time"
)

// A killed member is the holder of some of the limits, the backup of others and
// neither to the rest. What was under way when it died may be lost, and what it
// had not yet told its backups may be given twice: nothing else.
func TestKilledMembersLoseNothing(t *testing.T) {
	needSoak(t, soakShort)
	for _, c := range []struct {
		name        string
		synchronous bool
	}{{"asynchronous", false}, {"synchronous", true}} {
		t.Run(c.name, func(t *testing.T) {
			for run := range soak(t).of(0, 2, 5) {
				t.Run("killed", func(t *testing.T) {
					s := newScene(t, sceneOptions{Members: 3, Counters: halfUsed, Synchronous: c.synchronous})
					s.Kill(s.cluster.Members()[1])
					s.Rest(2 * time.Second)
					s.Finish(1)
				})
				t.Run("back within a second", func(t *testing.T) {
					s := newScene(t, sceneOptions{Members: 3, Counters: halfUsed, Synchronous: c.synchronous})
					pause := []time.Duration{50 * time.Millisecond, 400 * time.Millisecond}[run%2]
					s.Reborn(s.cluster.Members()[2], pause)
					s.Rest(2 * time.Second)
					s.Finish(1)
				})
			}
		})
	}
}

func TestTwoOfFiveKilledLoseNothing(t *testing.T) {
	needSoak(t, soakShort)
	s := newScene(t, sceneOptions{Members: 5, Counters: halfUsed})
	members := s.cluster.Members()
	s.Kill(members[1])
	s.Rest(10 * time.Second)
	s.Kill(members[3])
	s.Rest(2 * time.Second)
	s.Finish(2)
}
