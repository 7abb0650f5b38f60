package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// readmeBlock returns the fenced block of README.md in that language which
// contains words.
func readmeBlock(t testing.TB, language, words string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "README.md"))
	require.NoError(t, err)
	for _, part := range strings.Split(string(text), "```"+language+"\n")[1:] {
		block, _, closed := strings.Cut(part, "\n```")
		if closed && strings.Contains(block, words) {
			return block
		}
	}
	t.Fatalf("README.md has no %s block with %q", language, words)
	return ""
}

// The example of embedding is compiled and run as it stands, with addresses of
// this machine in place of a cluster's.
func TestEmbeddingExampleOfREADME(t *testing.T) {
	t.Parallel()
	example := readmeBlock(t, "go", "cluster.Start(")
	for _, replacement := range [][2]string{
		{`":7946"`, `"127.0.0.1:0"`},
		{`"api-peers.shop.svc:7946"`, ``},
	} {
		require.Contains(t, example, replacement[0])
		example = strings.Replace(example, replacement[0], replacement[1], 1)
	}
	program := `package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/ratelimit"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var (
		secret  = []byte("a secret of thirty-two characters")
		store   = auth.NewMemory()
		trusted ratelimit.Trusted
		mux     = http.NewServeMux()
		api     = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the API") })
	)
` + example + `
	if err != nil || !d.Allowed || d.Remaining != 99 {
		return fmt.Errorf("a decision of %+v, then %w", d, err)
	}
	for range 98 {
		if err := limits.Limit(ctx, perIP, "203.0.113.7"); err != nil {
			return err
		}
	}
	var exceeded *ratelimit.ExceededError
	if err := limits.Limit(ctx, perIP, "203.0.113.7"); !errors.As(err, &exceeded) {
		return fmt.Errorf("past the limit: %v", err)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != http.StatusUnauthorized {
		return fmt.Errorf("without a key: %d %s", w.Code, w.Body)
	}
	fmt.Println("done")
	return node.Close()
}
`
	file := filepath.Join(t.TempDir(), "main.go")
	require.NoError(t, os.WriteFile(file, []byte(program), 0o600))
	run := exec.Command("go", "run", file)
	run.Dir = root(t)
	out, err := run.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Equal(t, "done\n", string(out))
}

// What the README shows of the demo is what the demo prints, but for numbers.
func requireAsInREADME(t testing.TB, demo string) {
	t.Helper()
	shown := readmeBlock(t, "console", "cmd/node demo")
	_, shown, found := strings.Cut(shown, "go run ./cmd/node demo\n")
	require.True(t, found)
	assert.Equal(t, withoutNumbers(shown), withoutNumbers(demo))
}

var (
	numbers = regexp.MustCompile(`[0-9]+([.:][0-9]+)*`)
	victims = regexp.MustCompile(`(?m)^ *member-N (serving|killed) `)
	keys    = regexp.MustCompile(`(key|pl_live)_[0-9A-Za-z]+`)
	spaces  = regexp.MustCompile(` +`)
)

func withoutNumbers(text string) string {
	text = keys.ReplaceAllString(text, "KEY")
	text = spaces.ReplaceAllString(numbers.ReplaceAllString(text, "N"), " ")
	return strings.TrimSpace(victims.ReplaceAllString(text, "member-N is "))
}
