package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Verdict is the answer to the verification of a key.
type Verdict struct {
	Verdict string `json:"verdict"`
	ID      string `json:"id"`
	Cached  bool   `json:"cached"`
}

// Issued is a new key.
type Issued struct {
	ID  string `json:"id"`
	Key string `json:"key"`
}

// Receipt says how far a change of a key came.
type Receipt struct {
	Reached   int      `json:"reached"`
	Members   int      `json:"members"`
	TookMS    int64    `json:"took_ms"`
	Unreached []string `json:"unreached"`
}

// Verify asks for a verdict; refusals are answers too.
func (m *Member) Verify(ctx context.Context, key string) (v Verdict, err error) {
	status, _, text, err := m.Request(ctx, http.MethodPost, "/v1/auth/verify", mustJSON(map[string]string{"key": key}))
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(text, &v); err != nil || v.Verdict == "" {
		return v, fmt.Errorf("%s: verify: %d %.200s", m.Name, status, text)
	}
	return v, nil
}

// CreateKey makes a key by way of m. The tests' sweep knows of it; see secrets.
func (m *Member) CreateKey(ctx context.Context) (k Issued, err error) {
	_, err = m.Ask(ctx, http.MethodPost, "/v1/auth/keys", []byte(`{"project":"e2e"}`), &k)
	secrets.add(k.Key)
	return k, err
}

// ChangeKey does one of disable, enable and rotate, or with "" delete.
func (m *Member) ChangeKey(ctx context.Context, id, action string) (Receipt, error) {
	method, path := http.MethodPost, "/v1/auth/keys/"+id+"/"+action
	if action == "" {
		method, path = http.MethodDelete, "/v1/auth/keys/"+id
	}
	var answer struct{ Receipt Receipt }
	_, err := m.Ask(ctx, method, path, nil, &answer)
	return answer.Receipt, err
}

// AwaitCached verifies a key until m has it cached.
func (m *Member) AwaitCached(ctx context.Context, key string) error {
	for {
		v, err := m.Verify(ctx, key)
		switch {
		case err != nil:
			return err
		case v.Verdict != "VALID":
			return fmt.Errorf("%s: the key is %s", m.Name, v.Verdict)
		case v.Cached:
			return nil
		}
	}
}

// keyCluster is n members with one store of keys.
func keyCluster(t *testing.T, n int) *Cluster {
	t.Helper()
	store := filepath.Join(t.TempDir(), "keys.db")
	return NewCluster(t, n, MemberOptions{Args: []string{"--key-store=sqlite:" + store}})
}

// A key that every member has cached is refused by every member from the moment
// at which its revocation returns, by way of whichever member that was, while
// all are busy verifying it.
func TestRevokedKeyIsRefusedEverywhereAtOnce(t *testing.T) {
	cluster := keyCluster(t, 3)
	members := cluster.Members()
	times := soak(t).of(50, 200, 1000)
	var took []time.Duration
	for i := range times {
		ctx, cancel := short()
		key, err := members[i%3].CreateKey(ctx)
		require.NoError(t, err)
		for _, m := range members {
			require.NoError(t, m.AwaitCached(ctx, key.Key))
		}
		var returned atomic.Bool
		stop := make(chan struct{})
		var busy sync.WaitGroup
		for _, m := range members {
			for range 2 {
				busy.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						after := returned.Load() // before the question is sent
						v, err := m.Verify(ctx, key.Key)
						if !assert.NoError(t, err) {
							return
						}
						if after && v.Verdict != "DISABLED" && v.Verdict != "NOT_FOUND" {
							t.Errorf("round %d: %s says %s (cached %t) of a revoked key", i, m.Name, v.Verdict, v.Cached)
							return
						}
					}
				})
			}
		}
		action, want := "disable", "DISABLED"
		if i%4 == 3 {
			action, want = "", "NOT_FOUND"
		}
		start := time.Now()
		receipt, err := members[(i+1)%3].ChangeKey(ctx, key.ID, action)
		took = append(took, time.Since(start))
		returned.Store(true)
		require.NoError(t, err)
		for _, m := range members {
			v, err := m.Verify(ctx, key.Key)
			require.NoError(t, err)
			assert.Equal(t, want, v.Verdict, "round %d, %s", i, m.Name)
		}
		close(stop)
		busy.Wait()
		cancel()
		assert.Equal(t, 3, receipt.Members)
		assert.Equal(t, 3, receipt.Reached, "not reached: %v", receipt.Unreached)
		if t.Failed() {
			return
		}
	}
	slices.Sort(took)
	t.Logf("%d revocations: p50 %s, p99 %s, the slowest %s", times, took[times/2], took[times*99/100], took[times-1])
}

// A member that stands still while a key is revoked is named by the receipt, and
// when it goes on it never answers for that key from its cache.
func TestStoppedMemberNeverServesARevokedKey(t *testing.T) {
	t.Parallel()
	cluster := keyCluster(t, 3)
	members := cluster.Members()
	stopped := members[2]
	for i := range soak(t).of(1, 5, 50) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		key, err := members[0].CreateKey(ctx)
		require.NoError(t, err)
		for _, m := range members {
			require.NoError(t, m.AwaitCached(ctx, key.Key))
		}
		stopped.Stall()
		receipt, err := members[i%2].ChangeKey(ctx, key.ID, "disable")
		require.NoError(t, err)
		assert.Equal(t, []string{stopped.Name}, receipt.Unreached)
		assert.Equal(t, 2, receipt.Reached)
		// Questions that wait for it while it stands still, and others after.
		var asked sync.WaitGroup
		for range 8 {
			asked.Go(func() {
				for range 20 {
					v, err := stopped.Verify(ctx, key.Key)
					if assert.NoError(t, err) {
						assert.Contains(t, []string{"DISABLED", "UNAVAILABLE"}, v.Verdict, "cached: %t", v.Cached)
					}
				}
			})
		}
		stopped.Resume()
		asked.Wait()
		Eventually(t, 10*time.Second, func() error {
			v, err := stopped.Verify(ctx, key.Key)
			if err == nil && v.Verdict != "DISABLED" {
				err = fmt.Errorf("the verdict is %s", v.Verdict)
			}
			return err
		})
		cluster.AwaitOneRing(startTimeout)
		cancel()
		if t.Failed() {
			return
		}
	}
}

// A rotated key is good until its grace ends, and on all members no longer.
func TestRotatedKeyEndsEverywhereWithItsGrace(t *testing.T) {
	t.Parallel()
	cluster := keyCluster(t, 3)
	members := cluster.Members()
	ctx, cancel := short()
	defer cancel()
	old, err := members[0].CreateKey(ctx)
	require.NoError(t, err)
	for _, m := range members {
		require.NoError(t, m.AwaitCached(ctx, old.Key))
	}
	const grace = 2 * time.Second
	var next Issued
	before := time.Now()
	_, err = members[1].Ask(ctx, http.MethodPost, "/v1/auth/keys/"+old.ID+"/rotate", mustJSON(map[string]string{"grace": grace.String()}), &next)
	require.NoError(t, err)
	secrets.add(next.Key)
	ends := make([]time.Time, len(members))
	var wait sync.WaitGroup
	for i, m := range members {
		v, err := m.Verify(ctx, next.Key)
		require.NoError(t, err)
		assert.Equal(t, "VALID", v.Verdict)
		wait.Go(func() {
			for {
				asked := time.Now()
				v, err := m.Verify(ctx, old.Key)
				if !assert.NoError(t, err) {
					return
				}
				if v.Verdict != "VALID" {
					assert.Equal(t, "EXPIRED", v.Verdict)
					ends[i] = asked
					return
				}
			}
		})
	}
	wait.Wait()
	for i, end := range ends {
		assert.WithinDuration(t, before.Add(grace), end, time.Second, members[i].Name)
	}
}

func TestKeysByCommandLine(t *testing.T) {
	t.Parallel()
	cluster := keyCluster(t, 2)
	a, b := cluster.Members()[0], cluster.Members()[1]
	code, stdout, stderr := runNode(t, "keys", "create", "--project=shop", "--json", "--http="+a.HTTP)
	require.Equal(t, 0, code, stderr)
	var key Issued
	require.NoError(t, json.Unmarshal([]byte(stdout), &key))
	secrets.add(key.Key)
	ctx, cancel := short()
	defer cancel()
	for _, m := range cluster.Members() {
		require.NoError(t, m.AwaitCached(ctx, key.Key))
	}
	code, stdout, stderr = runNode(t, "keys", "disable", key.ID, "--http="+b.HTTP)
	require.Equal(t, 0, code, stderr)
	assert.Contains(t, stdout, "disabled: 2 of 2 members know")
	for _, m := range cluster.Members() {
		v, err := m.Verify(ctx, key.Key)
		require.NoError(t, err)
		assert.Equal(t, "DISABLED", v.Verdict)
	}
	code, stdout, _ = runNode(t, "keys", "list", "--http="+b.HTTP)
	assert.Equal(t, 0, code)
	assert.Contains(t, stdout, key.ID)
	assert.NotContains(t, stdout, key.Key)
}

// Keys outlive the member that made them, in the file that is used where none
// was asked for.
func TestKeysAreKeptByDefault(t *testing.T) {
	options := MemberOptions{Name: "m1", Cluster: clusterName(t), Env: []string{"XDG_STATE_HOME=" + t.TempDir()}, Args: []string{"--key-store="}}
	ctx, cancel := short()
	defer cancel()
	m := StartMember(t, options)
	key, err := m.CreateKey(ctx)
	require.NoError(t, err)
	m.Leave()
	m = StartMember(t, options)
	v, err := m.Verify(ctx, key.Key)
	require.NoError(t, err)
	assert.Equal(t, "VALID", v.Verdict)
	assert.Equal(t, key.ID, v.ID)
}
