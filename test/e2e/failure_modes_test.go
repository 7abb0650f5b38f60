package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// modes are what --on-unavailable may be. In the tests of this file one member
// each is started with it.
var modes = []string{"open", "closed", "local"}

const modeLimit = 12

func modeCheck(key string) []byte {
	return Check{Key: key, Limit: modeLimit, Period: "24h", Algorithm: "fixed-window"}.Body()
}

// answered is what a member said to a check.
type answered struct {
	Decision
	status int
	header http.Header
}

func (m *Member) ask(check []byte) (a answered, err error) {
	ctx, cancel := short()
	defer cancel()
	var body []byte
	if a.status, a.header, body, err = m.Request(ctx, http.MethodPost, "/v1/ratelimit/check", check); err != nil {
		return a, err
	}
	if err = json.Unmarshal(body, &a.Decision); err == nil && a.Policy == "" {
		err = fmt.Errorf("%s: %d %s", m.Name, a.status, body)
	}
	return a, err
}

// degradedAnswers are the degraded ones that members gave, by member and key.
type degradedAnswers struct {
	control *Control
	mu      sync.Mutex
	all     map[*Member]map[string][]answered // guarded by mu
}

// ask asks each member n times at once for each key.
func (d *degradedAnswers) ask(t *testing.T, members []*Member, keys []string, n int) {
	t.Helper()
	var wait sync.WaitGroup
	for _, m := range members {
		for _, key := range keys {
			for range n {
				wait.Go(func() {
					a, err := m.ask(modeCheck(key))
					if assert.NoError(t, err) && a.Degraded {
						d.add(m, key, a)
					}
				})
			}
		}
	}
	wait.Wait()
}

func (d *degradedAnswers) add(m *Member, key string, a answered) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = map[*Member]map[string][]answered{}
	}
	if d.all[m] == nil {
		d.all[m] = map[string][]answered{}
	}
	d.all[m][key] = append(d.all[m][key], a)
}

// judge compares the answers of a member with its mode, and with what it says of
// them in its metrics and its log.
func (d *degradedAnswers) judge(t *testing.T, m *Member, mode string) {
	t.Helper()
	var allowed, denied int
	for key, answers := range d.all[m] {
		permits, limit := int64(0), int64(0)
		for _, a := range answers {
			assert.Equal(t, "unavailable", a.Reason, m.Name)
			limit = max(limit, a.Limit)
			if a.Allowed {
				allowed++
				permits++
				assert.Equal(t, http.StatusOK, a.status, m.Name)
				continue
			}
			denied++
			assert.NotEmpty(t, a.header.Get("Retry-After"), m.Name)
			_, err := parseSF(a.header.Get("RateLimit"))
			assert.NoError(t, err, m.Name)
			want := map[string]int{"closed": http.StatusServiceUnavailable, "local": http.StatusTooManyRequests}[mode]
			assert.Equal(t, want, a.status, "%s, %s: %+v", m.Name, mode, a)
		}
		if mode == "local" {
			assert.Less(t, limit, int64(modeLimit), "%s has the whole limit for itself", m.Name)
			assert.LessOrEqual(t, permits, limit, "%s, key %s", m.Name, key)
			assert.True(t, permits == limit || permits == int64(len(answers)), "%s, key %s: %d of %d", m.Name, key, permits, len(answers))
		}
	}
	t.Logf("%s, on-unavailable %s: %d allowed, %d denied while nobody could decide", m.Name, mode, allowed, denied)
	switch mode {
	case "open":
		assert.Positive(t, allowed)
		assert.Zero(t, denied)
	case "closed":
		assert.Zero(t, allowed)
		assert.Positive(t, denied)
	case "local":
		assert.Positive(t, allowed)
		assert.Positive(t, denied)
	}
	ctx, cancel := short()
	defer cancel()
	metrics, err := m.Scrape(ctx)
	require.NoError(t, err)
	assert.EqualValues(t, allowed, metrics.Sum("ratelimit_decisions_total", "policy=default", "outcome=degraded_allowed"), m.Name)
	assert.EqualValues(t, denied, metrics.Sum("ratelimit_decisions_total", "policy=default", "outcome=degraded_denied"), m.Name)
	m.AwaitLog(5*time.Second, `msg="limiter degraded"`, "policy=default", "reason=unavailable", "mode="+mode)
	d.requireOnce(t, m, `msg="limiter degraded"`)
}

// requireOnce wants one line for one change. A machine that was stalled may have
// made more of them.
func (d *degradedAnswers) requireOnce(t *testing.T, m *Member, line string) {
	t.Helper()
	n := strings.Count(m.Log(), line)
	if n > 1 && len(d.control.Stalls()) > 0 {
		t.Logf("%s: %d lines of %s: %s", m.Name, n, line, d.control.Summary())
		return
	}
	assert.Equal(t, 1, n, "%s: %s, once a change", m.Name, line)
}

// awaitRecovery asks until decisions are ordinary again, and the log says so.
func (d *degradedAnswers) awaitRecovery(t *testing.T, m *Member, keys []string) {
	t.Helper()
	Eventually(t, 20*time.Second, func() error {
		for _, key := range keys {
			a, err := m.ask(modeCheck(key))
			require.NoError(t, err)
			if a.Degraded {
				d.add(m, key, a)
				return fmt.Errorf("%s: still degraded", m.Name)
			}
		}
		if !strings.Contains(m.Log(), `msg="limiter recovered"`) {
			return errors.New("the log does not say that it has recovered")
		}
		return nil
	})
	m.AwaitLog(time.Second, `msg="limiter recovered"`, "policy=default", "reason=unavailable")
	d.requireOnce(t, m, `msg="limiter recovered"`)
}

// The member that holds a key and the one that has its copy die at the same
// instant. Until somebody else may decide, each member's failure mode does; then
// the key begins anew. When the others die one after the other, nothing is
// degraded: the last one knows everything, and says that nobody else does.
func TestHolderAndBackupDieAtOnce(t *testing.T) {
	needSoak(t, soakShort)
	control := StartControl(t)
	cluster := NewCluster(t, 0, MemberOptions{})
	for i := range 5 {
		o := cluster.Options()
		if i < len(modes) {
			o.Args = append(o.Args, "--on-unavailable="+modes[i])
		}
		m := cluster.Launch(o)
		if i == 0 {
			m.AwaitReady()
		}
	}
	for _, m := range cluster.Members()[1:] {
		m.AwaitReady()
	}
	cluster.AwaitOneRing(startTimeout)
	members := cluster.Members()
	left, dying := members[:3], members[3:]
	begun := time.Now()
	ring := ringOf(t, left[0])
	var keys []string // those of which only the dying ones know
	for i := 0; len(keys) < 8; i++ {
		key := fmt.Sprintf("orphan:%d", i)
		if ring.role(dying[0].Name, key) != "neither" && ring.role(dying[1].Name, key) != "neither" {
			keys = append(keys, key)
		}
	}
	awaitCopies(t, members)
	answers := degradedAnswers{control: control}
	answers.ask(t, left[:1], keys, 1)
	if len(answers.all) > 0 && !control.Excuses(Span{begun, time.Now()}) {
		t.Errorf("degraded while all members are well: %+v", answers.all)
	}

	for _, m := range dying {
		m.Signal(syscall.SIGKILL)
	}
	answers.ask(t, left, keys, 6)
	for _, m := range dying {
		cluster.Forget(m)
		m.AwaitExit(10 * time.Second)
	}
	for _, m := range left {
		answers.awaitRecovery(t, m, keys)
	}
	for i, m := range left {
		answers.judge(t, m, modes[i])
	}

	// One after the other.
	// Synchronous, for a permit that has no copy yet may be given again.
	kept := Check{Key: "kept to the end", Limit: modeLimit, Period: "24h", Algorithm: "fixed-window", Synchronous: true}.Body()
	const used = 5
	for range used {
		a, err := left[0].ask(kept)
		require.NoError(t, err)
		require.True(t, a.Allowed)
	}
	for _, m := range []*Member{left[2], left[1]} {
		cluster.AwaitOneRing(startTimeout)
		awaitCopies(t, cluster.Members())
		cluster.Forget(m)
		m.Kill()
	}
	cluster.AwaitOneRing(startTimeout)
	last := left[0]
	Eventually(t, 10*time.Second, func() error {
		ctx, cancel := short()
		defer cancel()
		d, err := last.Peek(ctx, kept)
		if err == nil && (d.Degraded || d.Reason != "unprotected") {
			err = fmt.Errorf("the last one says %+v", d)
		}
		return err
	})
	for i := range modeLimit - used + 1 {
		a, err := last.ask(kept)
		require.NoError(t, err)
		assert.False(t, a.Degraded)
		assert.Equal(t, "unprotected", a.Reason)
		assert.Equal(t, i < modeLimit-used, a.Allowed, "what was used before is not forgotten: %+v", a)
		assert.Equal(t, map[bool]int{true: http.StatusOK, false: http.StatusTooManyRequests}[a.Allowed], a.status)
	}
	answers.requireOnce(t, last, `msg="limiter degraded"`) // and these deaths were no reason for another
}

// awaitCopies waits until all that members hold has a copy.
func awaitCopies(t *testing.T, members []*Member) {
	t.Helper()
	Eventually(t, startTimeout, func() error {
		for _, m := range members {
			ctx, cancel := short()
			metrics, err := m.Scrape(ctx)
			cancel()
			if err != nil {
				return err
			}
			view, err := m.View(context.Background())
			if err != nil {
				return err
			}
			if n := metrics.Sum("cluster_unprotected_entries"); n != 0 || view.Possession.Unprotected != 0 {
				return fmt.Errorf("%s: %v entries and %d slots have no copy", m.Name, n, view.Possession.Unprotected)
			}
		}
		return nil
	})
}

// Members that are cut off, each alone, and may not decide alone: for as long as
// that lasts their failure modes do, and when the network has healed nobody does.
func TestMembersThatAreCutOff(t *testing.T) {
	needSoak(t, soakShort)
	network := NewNetwork(t, 5)
	cluster := NewCluster(t, 0, MemberOptions{Args: []string{"--secret-file=" + secretFile(t, oneSecret), "--min-members=2"}})
	for i, host := range network.Hosts {
		o := cluster.Options()
		o.Host = host
		if i < len(modes) {
			o.Args = append(append([]string(nil), o.Args...), "--on-unavailable="+modes[i])
		}
		cluster.Launch(o).AwaitReady()
	}
	cluster.AwaitOneRing(startTimeout)
	members := cluster.Members()
	alone, majority := members[:3], members[3:]
	keys := []string{"cut:0", "cut:1", "cut:2", "cut:3"}

	network.Partition(network.Hosts[3:])
	answers := degradedAnswers{control: StartControl(t)}
	for range 3 {
		answers.ask(t, alone, keys, 6)
	}
	for _, m := range majority { // they go on
		Eventually(t, 10*time.Second, func() error {
			a, err := m.ask(modeCheck("cut:4"))
			if err == nil && a.Degraded {
				err = fmt.Errorf("%s is degraded", m.Name)
			}
			return err
		})
	}
	network.Heal()
	cluster.AwaitOneRing(10 * time.Second)
	for i, m := range alone {
		answers.awaitRecovery(t, m, keys)
		answers.judge(t, m, modes[i])
	}
}
