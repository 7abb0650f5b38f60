package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// reloaded is what a member logs after a SIGHUP.
const reloaded = `msg="configuration reloaded"`

// hangUp has every member read its files again, one after the other, and waits
// until each has.
func hangUp(t testing.TB, members []*Member) {
	t.Helper()
	for _, m := range members {
		before := strings.Count(m.Log(), reloaded)
		m.Signal(syscall.SIGHUP)
		Eventually(t, 10*time.Second, func() error {
			if strings.Count(m.Log(), reloaded) == before {
				return fmt.Errorf("%s has not read its files again", m.Name)
			}
			return nil
		})
	}
}

// Secrets between members and tokens are rotated while the members serve, and no
// call fails; who has only the old ones is refused from then on.
func TestSecretsAndTokensAreRotatedWithoutARestart(t *testing.T) {
	t.Parallel()
	const oldToken, newToken = "the-old-token-of-clients", "the-new-token-of-clients"
	for _, token := range []string{oldToken, newToken} {
		secrets.add(token)
	}
	secret, tokens := secretFile(t, anotherSecret), filepath.Join(t.TempDir(), "tokens")
	secrets.add(oneSecret)
	rewrite := func(path string, lines ...string) {
		require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	}
	rewrite(tokens, oldToken)
	cluster := NewCluster(t, 3, MemberOptions{Token: oldToken, Args: []string{"--secret-file=" + secret, "--api-token-file=" + tokens}})
	members := cluster.Members()

	// The callers change to the new token when it is accepted everywhere.
	newcomers := map[*Member]*Member{}
	var renewed atomic.Bool
	for _, m := range members {
		with := *m
		with.token = newToken
		newcomers[m] = &with
	}
	control := StartControl(t)
	load := StartLoad(t, members, LoadOptions{
		Callers: 3, Pause: 2 * time.Millisecond,
		Body: func(n uint64) []byte {
			return Check{Key: fmt.Sprint("k", n%300), Policy: "rotate", Limit: 1_000_000, Period: "24h"}.Body()
		},
		Ask: func(m *Member, ctx context.Context, body []byte) (Decision, error) {
			if renewed.Load() {
				m = newcomers[m]
			}
			return m.Check(ctx, body)
		},
	})
	load.AwaitEnded(300)
	step := func(what string, files func()) {
		files()
		hangUp(t, members)
		load.AwaitEnded(300)
		require.NoError(t, cluster.OneRing(), what)
	}
	step("the new one is accepted", func() { rewrite(secret, anotherSecret, oneSecret); rewrite(tokens, oldToken, newToken) })
	step("the new one is used", func() { rewrite(secret, oneSecret, anotherSecret) })
	renewed.Store(true)
	load.AwaitEnded(100) // calls that are under way with the old token end
	for _, m := range members {
		m.token = newToken // for what the test itself asks; no call of the load reads it any more
	}
	step("the old one is gone", func() { rewrite(secret, oneSecret); rewrite(tokens, newToken) })

	// A bad file changes nothing and is said.
	for name, spoil := range map[string]func(){
		"no token":       func() { rewrite(tokens, "# none") },
		"a short secret": func() { rewrite(secret, "short") },
	} {
		rewrite(secret, oneSecret)
		rewrite(tokens, newToken)
		spoil()
		const refused = `msg="configuration not reloaded`
		before := strings.Count(members[0].Log(), refused)
		members[0].Signal(syscall.SIGHUP)
		Eventually(t, 10*time.Second, func() error {
			if strings.Count(members[0].Log(), refused) == before {
				return fmt.Errorf("%s: it does not say that it did not read its files again", name)
			}
			return nil
		})
	}
	load.AwaitEnded(300)
	require.NoError(t, cluster.OneRing())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, m := range members {
		old := *m
		old.token = oldToken
		status, _, _, err := old.Request(ctx, http.MethodGet, "/v1/ratelimit", nil)
		require.NoError(t, err)
		assert.Equal(t, http.StatusForbidden, status, "%s still accepts the old token", m.Name)
	}

	// A member with the old secret only stays outside, one with the new joins.
	outsider := cluster.Options()
	outsider.Args = []string{"--secret-file=" + secretFile(t, anotherSecret)}
	left := LaunchMember(t, outsider)
	left.AwaitLog(startTimeout, "another secret")
	members[0].AwaitLog(startTimeout, "another secret")
	require.NoError(t, cluster.OneRing())
	left.Kill()
	rewrite(secret, oneSecret)
	rewrite(tokens, newToken)
	insider := cluster.Options()
	insider.Token = newToken
	cluster.Launch(insider).AwaitReady()
	cluster.AwaitOneRing(startTimeout)

	report := load.Stop()
	t.Logf("%v: %v; p99 %s; %s", "three rotations", report.Counts(), report.Percentile(0.99), control.Summary())
	requireUndisturbed(t, report, control)
}
