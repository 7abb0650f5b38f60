package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReloadTakesAllFilesOrNone(t *testing.T) {
	const first, second = "the-first-token-of-all", "the-second-token-of-all"
	tokenFile, secretFile := write(t, first+"\n"), write(t, "the-old-secret-of-all\n")
	command := &serveCommand{APITokenFile: tokenFile, SecretFile: secretFile, HTTP: "127.0.0.1:0"}
	access, err := command.readTokens()
	require.NoError(t, err)
	h := testAPI(t, access)
	var secrets [][]byte
	var refused error
	var log bytes.Buffer
	r := &reloader{serve: command, handler: h, log: slog.New(slog.NewTextHandler(&log, nil)), setSecrets: func(to [][]byte) error {
		if refused == nil {
			secrets = to
		}
		return refused
	}}
	status := func(token string) int {
		return ask(h, "GET", "/v1/ratelimit", "", "Authorization", "Bearer "+token).status
	}
	rewrite := func(path, text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }

	rewrite(tokenFile, second+"\n")
	rewrite(secretFile, "the-new-secret-of-all\nthe-old-secret-of-all\n")
	assert.Equal(t, 200, status(first), "nobody asked for it yet")
	r.reload()
	assert.Equal(t, 403, status(first))
	assert.Equal(t, 200, status(second))
	require.Len(t, secrets, 2)
	assert.Equal(t, "the-new-secret-of-all", string(secrets[0]))
	assert.Contains(t, log.String(), `msg="configuration reloaded"`)

	good := secrets
	for name, spoil := range map[string]func(){
		"the secret is missing":    func() { rewrite(tokenFile, first+"\n"); require.NoError(t, os.Remove(secretFile)) },
		"the secret is short":      func() { rewrite(secretFile, "short\n") },
		"too many":                 func() { rewrite(secretFile, strings.Repeat("one-of-too-many-secrets\n", 17)) },
		"a file that is too large": func() { rewrite(secretFile, strings.Repeat("#", mostSecretBytes+1)) },
		"the tokens are empty":     func() { rewrite(secretFile, "the-next-secret-of-all\n"); rewrite(tokenFile, "# none\n") },
		"the cluster refuses":      func() { rewrite(tokenFile, first+"\n"); refused = errors.New("not now") },
	} {
		rewrite(tokenFile, first+"\n")
		rewrite(secretFile, "the-next-secret-of-all\n")
		refused = nil
		spoil()
		log.Reset()
		r.reload()
		assert.Contains(t, log.String(), `level=ERROR msg="configuration not reloaded`, name)
		assert.NotContains(t, log.String(), "secret-of-all", name)
		assert.Equal(t, 200, status(second), name)
		assert.Equal(t, 403, status(first), name)
		assert.Equal(t, good, secrets, name)
	}
}

func TestReloadOnHangup(t *testing.T) {
	tokenFile := write(t, "the-first-token-of-all\n")
	command := &serveCommand{APITokenFile: tokenFile, HTTP: "127.0.0.1:0"}
	access, err := command.readTokens()
	require.NoError(t, err)
	h := testAPI(t, access)
	hangups, forget := askForHangups()
	defer forget()
	r := &reloader{serve: command, handler: h, log: slog.New(slog.DiscardHandler)}
	require.NoError(t, os.WriteFile(tokenFile, []byte("the-second-token-of-all\n"), 0o600))
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP)) // before anybody listens: kept
	defer r.onHangup(t.Context(), hangups)()
	require.Eventually(t, func() bool {
		return ask(h, "GET", "/v1/ratelimit", "", "Authorization", "Bearer the-second-token-of-all").status == 200
	}, 10*time.Second, time.Millisecond)
}
