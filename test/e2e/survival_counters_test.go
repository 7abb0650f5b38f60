package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// batchSize is how many checks a request may hold.
const batchSize = 100

// each decides checks one by one, many in a request, over all members at once.
// The answers are in the order of the checks.
func each(members []*Member, path string, checks []Check) ([]Decision, error) {
	decisions := make([]Decision, len(checks))
	var (
		wait sync.WaitGroup
		next atomic.Int64
		mu   sync.Mutex
		errs []error // guarded by mu
	)
	for _, m := range members {
		wait.Go(func() {
			for {
				to := int(next.Add(batchSize))
				from := to - batchSize
				if from >= len(checks) {
					return
				}
				to = min(to, len(checks))
				answers, err := batch(m, path, checks[from:to])
				copy(decisions[from:to], answers)
				if err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	wait.Wait()
	return decisions, errors.Join(errs...)
}

func batch(m *Member, path string, checks []Check) ([]Decision, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	body, err := json.Marshal(struct {
		Independent bool    `json:"independent"`
		Checks      []Check `json:"checks"`
	}{true, checks})
	if err != nil {
		return nil, err
	}
	var answer Decisions
	if _, err := m.Ask(ctx, http.MethodPost, path, body, &answer); err != nil {
		return nil, err
	}
	if len(answer.Decisions) != len(checks) {
		return nil, fmt.Errorf("%s: %d decisions for %d checks", m.Name, len(answer.Decisions), len(checks))
	}
	return answer.Decisions, nil
}

const (
	checkPath  = "/v1/ratelimit/check"
	statusPath = "/v1/ratelimit/status"
)

// Counters are many limits of which one half is used before things happen, so
// that afterwards exactly the other half must be there.
type Counters struct {
	checks []Check
	filled []bool // false: nobody can say what was used, for the machine stalled
}

const counterLimit, counterHalf = 10, 5

// FillCounters uses half of n limits.
func FillCounters(t testing.TB, members []*Member, control *Control, n int) *Counters {
	t.Helper()
	c := &Counters{filled: make([]bool, n)}
	for i := range n {
		c.checks = append(c.checks, Check{Key: fmt.Sprintf("half:%d", i), Limit: counterLimit, Period: "24h", Cost: counterHalf,
			Algorithm: [...]string{"fixed-window", "token-bucket", "sliding-window"}[i%3]})
	}
	begun := time.Now()
	decisions, err := each(members, checkPath, c.checks)
	require.NoError(t, err)
	unknown := 0
	for i, d := range decisions {
		c.filled[i] = d.Allowed && !d.Degraded
		switch {
		case c.filled[i]:
		case d.Degraded:
			unknown++
		default:
			t.Fatalf("%s was denied its first half", c.checks[i].Key)
		}
	}
	// A call that was sent twice, because the machine stalled, may have used both
	// halves.
	looked, _ := look(t, members, c.checks)
	for i, d := range looked {
		if c.filled[i] && counterLimit-d.Remaining != counterHalf {
			c.filled[i] = false
			unknown++
		}
	}
	t.Logf("half of %d counters used in %s, %d unknown", n, time.Since(begun).Round(time.Millisecond), unknown)
	if unknown > 0 && !control.Excuses(Span{begun, time.Now()}) {
		t.Errorf("%d decisions were degraded, or used more than they should, while nothing happened", unknown)
	}
	return c
}

// Verify looks at each counter, which must have its other half left, uses that,
// and then asks for more, of which a counter may have extra permits: as many as
// its holder had not yet told its backup of.
func (c *Counters) Verify(t testing.TB, members []*Member, control *Control, extra int) {
	t.Helper()
	begun := time.Now()
	looked, late := look(t, members, c.checks)
	var forgot, missing, unknown int
	var examples []string
	for i, d := range looked {
		wrong := false
		switch used := counterLimit - int(d.Remaining); {
		case !c.filled[i]:
		case d.Degraded:
			unknown++
		case used < counterHalf-extra:
			forgot++
			wrong = true
		case used > counterHalf:
			missing++
			wrong = true
		}
		if wrong && len(examples) < 10 {
			examples = append(examples, fmt.Sprintf("%s, slot %d, used: %d", c.checks[i].Key, slotOf(c.checks[i].Key), counterLimit-d.Remaining))
		}
	}
	assert.Zero(t, forgot, "counters that forgot what was used of them: %q", examples)
	assert.Zero(t, missing, "counters of which more was used than the half: %q", examples)

	second, err := each(members, checkPath, c.checks)
	require.NoError(t, err)
	var more []Check
	denied, gave, beyond := 0, map[string]int{}, 0
	for i, d := range second {
		switch {
		case !c.filled[i]:
		case d.Degraded:
			unknown++
		case !d.Allowed:
			denied++
		default:
			one := c.checks[i]
			one.Cost = 1
			more = append(more, one)
		}
	}
	for round := 0; round <= counterLimit && len(more) > 0; round++ {
		decisions, err := each(members, checkPath, more)
		require.NoError(t, err)
		var again []Check
		for i, d := range decisions {
			switch {
			case d.Degraded:
				unknown++
			case d.Allowed:
				gave[more[i].Key]++
				again = append(again, more[i])
			}
		}
		more = again
	}
	for _, n := range gave {
		if n > extra {
			beyond++
		}
	}
	t.Logf("%d counters looked at and used up in %s: %d forgot, %d lost some, %d denied their other half, %d gave more, %d of them beyond %d; %d could not be looked at in one try, %d decisions degraded",
		len(c.checks), time.Since(begun).Round(time.Millisecond), forgot, missing, denied, len(gave), beyond, extra, late, unknown)
	assert.Zero(t, denied, "counters that denied their other half")
	assert.Zero(t, beyond, "counters that gave more than their limit and %d", extra)
	if late+unknown > 0 && !control.Excuses(Span{begun, time.Now()}) {
		t.Errorf("%d looks and %d decisions were degraded after everything had happened", late, unknown)
	}
}

// lookFor is how long a decision that spends nothing is asked for again.
const lookFor = 15 * time.Second

// look asks what is left, and asks again where the answer was a degraded one:
// nothing is spent by it. late is how many had to be asked again.
func look(t testing.TB, members []*Member, checks []Check) (decisions []Decision, late int) {
	t.Helper()
	decisions, err := each(members, statusPath, checks)
	require.NoError(t, err)
	for deadline, first := time.Now().Add(lookFor), true; ; first = false {
		var again []Check
		var of []int
		for i, d := range decisions {
			if d.Degraded {
				again, of = append(again, checks[i]), append(of, i)
			}
		}
		if first {
			late = len(again)
		}
		if len(again) == 0 || time.Now().After(deadline) {
			return decisions, late
		}
		time.Sleep(100 * time.Millisecond)
		more, err := each(members, statusPath, again)
		require.NoError(t, err)
		for i, d := range more {
			decisions[of[i]] = d
		}
	}
}
