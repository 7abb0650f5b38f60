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
		for range 2 {
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
	t.Logf("half of %d counters used in %s, %d unknown", n, time.Since(begun).Round(time.Millisecond), unknown)
	if unknown > 0 && !control.Excuses(Span{begun, time.Now()}) {
		t.Errorf("%d decisions were degraded while nothing happened", unknown)
	}
	return c
}

// Verify uses the other half of each counter, which must be there, and then
// asks for more, of which a counter may have extra permits: as many as its
// holder had not yet told its backup of.
func (c *Counters) Verify(t testing.TB, members []*Member, control *Control, extra int) {
	t.Helper()
	begun := time.Now()
	second, err := each(members, checkPath, c.checks)
	require.NoError(t, err)
	var lost, missing, unknown int
	var more []Check
	var examples []string
	for i, d := range second {
		switch {
		case !c.filled[i]:
		case d.Degraded:
			unknown++
		case !d.Allowed:
			missing++
			examples = append(examples, fmt.Sprintf("%s has %d left of its other half", c.checks[i].Key, d.Remaining))
		default:
			one := c.checks[i]
			one.Cost = 1
			more = append(more, one)
		}
	}
	had := make(map[string]int)
	for round := 0; round <= counterLimit && len(more) > 0; round++ {
		decisions, err := each(members, checkPath, more)
		require.NoError(t, err)
		var again []Check
		for i, d := range decisions {
			switch {
			case d.Degraded:
				unknown++
			case d.Allowed:
				had[more[i].Key]++
				again = append(again, more[i])
			}
		}
		more = again
	}
	for key, n := range had {
		if n > extra {
			lost++
			examples = append(examples, fmt.Sprintf("%s gave %d permits too many", key, n))
		}
	}
	t.Logf("other half of %d counters checked in %s: %d gave too many, %d of them beyond %d; %d gave too few; %d unknown",
		len(c.checks), time.Since(begun).Round(time.Millisecond), len(had), lost, extra, missing, unknown)
	assert.Zero(t, lost, "counters that forgot: %.10q", examples)
	assert.Zero(t, missing, "counters that gave less than their other half: %.10q", examples)
	if unknown > 0 && !control.Excuses(Span{begun, time.Now()}) {
		t.Errorf("%d decisions were degraded after everything had happened", unknown)
	}
}
