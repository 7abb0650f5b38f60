package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// What would let strangers in is refused, by a line that says what to set.
func TestOpenBindsAreRefused(t *testing.T) {
	secret := secretFile(t, oneSecret)
	for _, c := range []struct{ args, want string }{
		{"--http=127.0.0.1:0 --bind=0.0.0.0:0", "--secret-file"},
		{"--http=127.0.0.1:0 --bind=:0", "--secret-file"},
		{"--http=127.0.0.1:0 --bind=127.0.0.1:0 --peer-bind=0.0.0.0:0", "--secret-file"},
		{"--http=127.0.0.1:0 --bind=127.0.0.1:0 --kv-bind=0.0.0.0:0", "--secret-file"},
		{"--http=0.0.0.0:0 --bind=127.0.0.1:0", "--api-token-file"},
		{"--http=:0 --bind=127.0.0.1:0", "--api-token-file"},
		{"--http=0.0.0.0:0 --bind=0.0.0.0:0 --secret-file=" + secret, "--api-token-file"},
	} {
		code, stdout, stderr := runNode(t, append([]string{"serve"}, strings.Fields(c.args)...)...)
		assert.Equal(t, 2, code, c.args)
		assert.Empty(t, stdout, "it has served")
		assert.Contains(t, stderr, c.want, c.args)
		assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
}
