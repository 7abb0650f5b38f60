package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// firstRelease is the commit that v0.1.0 was made from: the previous release
// where a clone has no tags.
const firstRelease = "51e1f1e61a6b1785e75941e7615bf7393ac8e26d"

// previousVariable names, as a tag or another git reference, what counts as the
// previous release.
const previousVariable = "PEERLIMIT_TEST_PREVIOUS"

// Members of the previous release are replaced by such as are built from these
// sources, and those again by members of the previous release, under load. In
// between, and at rest for a while, both are in one cluster.
func TestUpgradesAndRollbacksLoseNothing(t *testing.T) {
	needSoak(t, soakShort)
	previous := buildPrevious(t)
	upgrade := func(t *testing.T, members, atATime int) {
		s := newScene(t, sceneOptions{Members: members, Counters: halfUsed, Small: 20, Callers: 2, Pause: 10 * time.Millisecond,
			Defaults: MemberOptions{Binary: previous}})
		s.SpendSmall()
		of := func(binary string) func() MemberOptions {
			return func() MemberOptions {
				o := s.cluster.Options()
				o.Binary = binary
				return o
			}
		}
		for _, binary := range []string{nodeBinary, previous} {
			for old := s.cluster.Members(); len(old) > 0; old = old[atATime:] {
				s.Surge(of(binary), old[:atATime])
				s.Rest(500 * time.Millisecond)
			}
		}
		s.Finish(0)
	}
	t.Run("three, one by one", func(t *testing.T) { upgrade(t, 3, 1) })
	t.Run("six, two at a time", func(t *testing.T) {
		needSoak(t, soakFull)
		upgrade(t, 6, 2)
	})
}

// A member that speaks the next version of the protocol, and this one, is a
// member like any other. One that has left this version behind is refused, and
// both sides say why.
func TestProtocolVersionsThatMeetAndThatDoNot(t *testing.T) {
	needSoak(t, soakShort)
	newest := protocolVersion(t)
	cluster := NewCluster(t, 2, MemberOptions{})
	present := cluster.Members()
	next, beyond := buildProtocol(t, newest+1), buildProtocol(t, newest+2)

	const limit = 300
	check := Check{Key: "k", Limit: limit, Period: "24h", Algorithm: "fixed-window"}
	options := cluster.Options()
	options.Binary = next
	between := cluster.Launch(options)
	between.AwaitReady()
	cluster.AwaitOneRing(startTimeout)
	counts, _ := burstUndisturbed(t, cluster, StartControl(t), 3*limit, check)
	assert.EqualValues(t, limit, counts.Allowed)
	assert.Zero(t, counts.Degraded)

	cluster.Forget(between) // which would understand both
	between.Leave()
	cluster.AwaitOneRing(startTimeout)
	options = cluster.Options()
	options.Binary = beyond
	outsider := LaunchMember(t, options)
	speaks := func(oldest, newest int) string { return fmt.Sprintf("%d to %d", oldest, newest) }
	theirs, ours := speaks(newest+1, newest+2), speaks(max(1, newest-1), newest)
	present[0].AwaitLog(startTimeout, `msg="member refused"`, fmt.Sprintf("it speaks peer protocol %s, this member %s", theirs, ours))
	outsider.AwaitLog(startTimeout, `msg="member refused"`, fmt.Sprintf("it speaks peer protocol %s, this member %s", ours, theirs))
	require.NoError(t, cluster.OneRing())
	outsider.Kill()

	// And by who has not even looked at the list of members.
	knock(t, present[1].Peer, hello(0x6363, helloMagic, clusterHash(cluster.name)))
	present[1].AwaitLog(10*time.Second, `msg="peer refused"`, "reason=version",
		fmt.Sprintf("it speaks protocol versions 99 to 99, this member %s", ours))
}

// buildPrevious builds cmd/node of the previous release: of the newest tag that
// leads to these sources, but is not of them.
func buildPrevious(t testing.TB) (binary string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("there is no git, which has the previous release")
	}
	git := func(args ...string) ([]byte, error) {
		c := exec.Command("git", append([]string{"-C", root(t)}, args...)...)
		out, err := c.Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(exit.Stderr))
		}
		return out, err
	}
	ref, given := os.LookupEnv(previousVariable)
	if !given {
		tags, err := git("-c", "versionsort.suffix=-", "tag", "--list", "v*", "--merged", "HEAD", "--no-contains", "HEAD", "--sort=-version:refname")
		if err != nil {
			t.Skipf("the previous release can't be had: %v", err)
		}
		ref, _, _ = strings.Cut(string(tags), "\n")
		if ref == "" {
			ref = firstRelease
		}
	}
	sources, err := git("archive", "--format=tar", ref)
	switch {
	case err != nil && given:
		t.Fatalf("%s: %v", previousVariable, err)
	case err != nil:
		t.Skipf("this clone does not have the previous release, %s (a shallow clone does not): %v", ref, err)
	}
	dir := t.TempDir()
	unpack := exec.Command("tar", "-x", "-C", dir)
	unpack.Stdin = bytes.NewReader(sources)
	out, err := unpack.CombinedOutput()
	require.NoError(t, err, "tar: %s", out)
	t.Logf("the previous release is %s", ref)
	return buildNode(t, dir)
}

// buildNode builds cmd/node of the sources in dir.
func buildNode(t testing.TB, dir string, flags ...string) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "node")
	build := exec.Command("go", append(append([]string{"build", "-o", binary}, flags...), "./cmd/node")...)
	build.Dir = dir
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s: %s", build, out)
	return binary
}

const versionSource = "cluster/internal/peer/hello.go"

var versionLine = regexp.MustCompile(`(?m)^(\tVersion +uint8 = )(\d+)$`)

// protocolVersion is the newest version of the protocol that these sources speak.
func protocolVersion(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), versionSource))
	require.NoError(t, err)
	found := versionLine.FindSubmatch(text)
	require.NotNil(t, found, "%s does not say the version of the protocol", versionSource)
	version, err := strconv.Atoi(string(found[2]))
	require.NoError(t, err)
	return version
}

// buildProtocol builds cmd/node of these sources as if their protocol had that
// version.
func buildProtocol(t testing.TB, version int) (binary string) {
	t.Helper()
	original := filepath.Join(root(t), versionSource)
	text, err := os.ReadFile(original)
	require.NoError(t, err)
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, "hello.go"), filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(changed, versionLine.ReplaceAll(text, fmt.Appendf(nil, "${1}%d", version)), 0o600))
	replaced, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, replaced, 0o600))
	return buildNode(t, root(t), "-overlay", overlay)
}
