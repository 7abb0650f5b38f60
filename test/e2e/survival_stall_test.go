package e2e

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A member that stands still is as good as dead to the others, and when it goes
// on it does not know that. It must not answer from what it has before it has
// asked.
func TestStoppedMembersLoseNothing(t *testing.T) {
	needSoak(t, soakShort)
	for _, d := range []time.Duration{200 * time.Millisecond, 2 * time.Second, 15 * time.Second}[:soak(t).of(0, 2, 3)] {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			s := newScene(t, sceneOptions{Members: 3, Counters: halfUsed})
			woken := s.cluster.Members()[1]
			others := []*Member{s.cluster.Members()[0], s.cluster.Members()[2]}

			// Limits with one permit left, which is spent while the member
			// stands still: it must not give it once more.
			var spent []Check
			for i := range 300 {
				spent = append(spent, Check{Key: fmt.Sprintf("spent:%d", i), Limit: 100, Cost: 99, Period: "24h", Algorithm: "fixed-window"})
			}
			decisions, err := each(others, checkPath, spent)
			require.NoError(t, err)
			for i, decision := range decisions {
				require.True(t, decision.Allowed && !decision.Degraded, "%s: %+v", spent[i].Key, decision)
				spent[i].Cost = 1
			}

			var wait sync.WaitGroup
			var again, degraded, asked atomic.Int64
			ring := s.roles(woken)
			wait.Go(func() {
				time.Sleep(d / 2) // in the middle of the stall
				decisions, err := each(others, checkPath, spent)
				assert.NoError(t, err)
				lost := 0
				for _, decision := range decisions {
					if !decision.Allowed || decision.Degraded {
						lost++
					}
				}
				if lost > 0 {
					t.Errorf("%d of %d limits could not be spent while %s stood still", lost, len(spent), woken.Name)
				}
				// These wait in the member's sockets until it goes on.
				decisions, err = each([]*Member{woken}, checkPath, spent)
				assert.NoError(t, err)
				for i, decision := range decisions {
					asked.Add(1)
					switch {
					case decision.Degraded:
						degraded.Add(1)
					case decision.Allowed:
						if again.Add(1) <= 3 {
							t.Errorf("%s, whose %s the woken %s was, gave a permit that others had spent", spent[i].Key, ring(spent[i].Key), woken.Name)
						}
					}
				}
			})
			s.Stall(woken, d)
			wait.Wait()
			t.Logf("the woken member was asked %d times for what was spent: gave it %d times, could not say %d times",
				asked.Load(), again.Load(), degraded.Load())
			s.cluster.AwaitOneRing(10 * time.Second)
			s.Rest(2 * time.Second)
			s.Finish(1)
		})
	}
}
