package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// skewVariable is by how many seconds the wall clock of a skewed binary is
// wrong.
const skewVariable = "E2E_WALL_CLOCK_SKEW"

// skewedBinary builds cmd/node with a standard library whose time.Now is wrong
// by as much as the environment says: nothing of the product has to know of the
// test, and everything in it, its dependencies too, sees the wrong clock. The
// monotonic clock is left as it is, as it is by a machine whose clock is wrong.
func skewedBinary(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	original := filepath.Join(strings.TrimSpace(output(t, "go", "env", "GOROOT")), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	require.NoError(t, err)
	const reading = "	sec, nsec, mono := runtimeNow()\n	if mono == 0 {"
	if strings.Count(string(source), reading) != 1 {
		t.Skipf("time.Now of %s is not as this test knows it", runtime.Version())
	}
	changed := strings.Replace(string(source), reading,
		"	sec, nsec, mono := runtimeNow()\n	sec += wallClockSkew\n	if mono == 0 {", 1)
	changed += `
var wallClockSkew = func() (seconds int64) {
	text, _ := syscall.Getenv("` + skewVariable + `")
	sign := int64(1)
	for _, c := range text {
		if c == '-' {
			sign = -1
			continue
		}
		seconds = 10*seconds + int64(c-'0')
	}
	return sign * seconds
}()
`
	changed = strings.Replace(changed, "import (\n", "import (\n\t\"syscall\"\n", 1)
	path := filepath.Join(dir, "time.go")
	require.NoError(t, os.WriteFile(path, []byte(changed), 0o600))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: path}})
	require.NoError(t, err)
	list := filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(list, overlay, 0o600))
	binary := filepath.Join(dir, "node")
	output(t, "go", "build", "-overlay", list, "-o", binary, "github.com/peerlimit/peerlimit/cmd/node")
	return binary
}

func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	command := exec.Command(name, args...)
	out, err := command.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		t.Fatalf("%s %v: %s", name, args, exit.Stderr)
	}
	require.NoError(t, err)
	return string(out)
}

// Wall clocks that are 5 s too early and too late change nothing about what a
// killed member costs, nor about when a window ends.
func TestWrongClocksChangeNothing(t *testing.T) {
	needSoak(t, soakShort)
	honest := nodeBinary
	nodeBinary = skewedBinary(t) // no test here runs at the same time as another
	defer func() { nodeBinary = honest }()
	s := newScene(t, sceneOptions{Counters: halfUsed, Start: func(c *Cluster) {
		for _, skew := range []int{0, 5, -5} {
			o := c.Options()
			o.Env = append(o.Env, fmt.Sprintf("%s=%d", skewVariable, skew))
			c.Launch(o).AwaitReady()
		}
		c.AwaitOneRing(startTimeout)
	}})
	members := s.cluster.Members()
	for i, skew := range []time.Duration{0, 5 * time.Second, -5 * time.Second} {
		assert.InDelta(t, skew.Seconds(), wallClockOf(t, members[i]).Seconds(), 3, "of %s, or the test tests nothing", members[i].Name)
	}

	// A window that was begun before the kill ends when it should: not 5 s
	// sooner or later.
	var windows []Check
	for i := range 300 {
		windows = append(windows, Check{Key: fmt.Sprintf("window:%d", i), Limit: 1, Period: "8s", Algorithm: "fixed-window"})
	}
	begun := time.Now()
	first, err := each(members, checkPath, windows)
	require.NoError(t, err)
	for i, d := range first {
		require.True(t, d.Allowed && !d.Degraded, "%s: %+v", windows[i].Key, d)
	}
	full := time.Now()
	ring := ringOf(t, members[0])
	s.Rest(100 * time.Millisecond) // for copies: one permit of a limit of 1 may be owed
	s.Kill(members[1])
	s.Rest(time.Second)
	for time.Since(begun) < 7500*time.Millisecond {
		for _, m := range s.cluster.Members() {
			looked, err := each([]*Member{m}, statusPath, windows)
			require.NoError(t, err)
			early := map[string]int{}
			for i, d := range looked {
				if d.Allowed && !d.Degraded {
					early["held by "+ring.Holder(windows[i].Key)+", copied to "+ring.Backup(windows[i].Key)]++
				}
			}
			if time.Since(begun) < 8*time.Second {
				require.Empty(t, early, "windows of 8 s that ended within %s, by %s", time.Since(begun), m.Name)
			}
		}
		s.Rest(200 * time.Millisecond)
	}
	time.Sleep(time.Until(full.Add(8*time.Second + 500*time.Millisecond)))
	looked, _ := look(t, s.cluster.Members(), windows)
	late := 0
	for _, d := range looked {
		if !d.Allowed {
			late++
		}
	}
	assert.Zero(t, late, "windows of 8 s that have not ended after %s", time.Since(full))
	s.Finish(1)
}

// wallClockOf is by how much a member's wall clock, as the Date of its answers
// shows it, is ahead.
func wallClockOf(t testing.TB, m *Member) time.Duration {
	t.Helper()
	ctx, cancel := short()
	defer cancel()
	_, header, _, err := m.Request(ctx, "GET", "/healthz", nil)
	require.NoError(t, err)
	date, err := time.Parse(time.RFC1123, header.Get("Date"))
	require.NoError(t, err)
	return time.Until(date)
}
