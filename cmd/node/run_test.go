package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// runNode runs a command line in this process.
func runNode(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func write(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestBadUsageIsOneLineThatNamesTheFlag(t *testing.T) {
	short := write(t, "tooshort\n")
	empty := write(t, "# nothing\n\n")
	for _, c := range []struct {
		args string
		want []string
	}{
		{"", []string{"demo", "serve", "check", "status"}},
		{"frobnicate", []string{"frobnicate"}},
		{"serve --nonsense", []string{"--nonsense"}},
		{"serve --http 127.0.0.1", []string{"--http", "HOST:PORT"}},
		{"serve --http 127.0.0.1:65536", []string{"--http", "0 to 65535"}},
		{"serve --bind nowhere", []string{"--bind", "HOST:PORT"}},
		{"serve --http 0.0.0.0:0", []string{"--http", "--api-token-file"}},
		{"serve --http :0", []string{"--http", "--api-token-file"}},
		{"serve --http 127.0.0.1.example.com:0", []string{"--http", "--api-token-file"}},
		{"serve --http 127.0.0.1:0 --bind 0.0.0.0:0", []string{"--secret-file"}},
		{"serve --http 127.0.0.1:0 --peer-bind 0.0.0.0:0", []string{"--secret-file"}},
		{"serve --http 127.0.0.1:0 --cluster a/b", []string{"--cluster"}},
		{"serve --http 127.0.0.1:0 --min-members 0", []string{"--min-members", "1 to 10000"}},
		{"serve --http 127.0.0.1:0 --min-members x", []string{"--min-members"}},
		{"serve --http 127.0.0.1:0 --drain-delay 6m", []string{"--drain-delay", "5m"}},
		{"serve --on-unavailable maybe", []string{"--on-unavailable", "open", "closed", "local"}},
		{"serve --log-level loud", []string{"--log-level", "debug"}},
		{"serve --api-token-file /nonexistent", []string{"--api-token-file"}},
		{"serve --api-token-file " + short, []string{"--api-token-file", "16 characters"}},
		{"serve --admin-token-file " + empty, []string{"--admin-token-file", "at least one line"}},
		{"serve --http 127.0.0.1:0 --secret-file " + short, []string{"--secret-file", "16 characters"}},
		{"serve --http 127.0.0.1:0 --tls-cert " + short, []string{"--tls-"}},
		{"serve --config /nonexistent", []string{"--config"}},
		{"check", []string{"--limit", "--period"}},
		{"check k --limit x --period 1s", []string{"--limit"}},
		{"check k --limit 1 --period 60", []string{"--period", "duration"}},
		{"check k --limit 1 --period 1s --http ftp://x", []string{"--http", "http or https"}},
		{"check k --limit 1 --period 1s --http http://u:p@x", []string{"--http", "--api-token-file"}},
		{"check k --limit 1 --period 1s --timeout 0s", []string{"--timeout", "1ms to 10m"}},
		{"status extra", []string{"extra"}},
	} {
		code, stdout, stderr := runNode(t, strings.Fields(c.args)...)
		assert.Equal(t, exitUsage, code, "%s: %s", c.args, stderr)
		assert.Empty(t, stdout, c.args)
		assert.Equal(t, 1, strings.Count(stderr, "\n"), "%s: %s", c.args, stderr)
		for _, want := range c.want {
			assert.Contains(t, stderr, want, c.args)
		}
		assert.NotContains(t, stderr, "tooshort", "a secret is in the message")
	}
}

func TestHelpNamesEveryFlagItsVariableAndItsDefault(t *testing.T) {
	code, stdout, stderr := runNode(t, "serve", "--help")
	assert.Equal(t, exitDone, code)
	assert.Empty(t, stderr)
	text := strings.Join(strings.Fields(stdout), " ")
	for _, want := range []string{"--bind", "default 127.0.0.1:7946", "$PEERLIMIT_BIND", "$PEERLIMIT_KV_BIND",
		"--admin-token-file", "$PEERLIMIT_ADMIN_TOKEN_FILE", "default open"} {
		assert.Contains(t, text, want)
	}
	assert.NotContains(t, text, "stop-with-stdin")

	code, stdout, _ = runNode(t, "--help")
	assert.Equal(t, exitDone, code)
	for _, command := range []string{"demo", "serve", "check", "status"} {
		assert.Contains(t, stdout, command)
	}
}

func TestFlagBeatsEnvironmentBeatsFile(t *testing.T) {
	parse := func(args ...string) (line commandLine) {
		parser, err := newParser(&line, os.Stdout, os.Stderr)
		require.NoError(t, err)
		_, err = parser.Parse(args)
		require.NoError(t, err)
		return line
	}
	assert.Equal(t, address("127.0.0.1:8080"), parse("serve").Serve.HTTP)

	config := write(t, `
# what serve and status share
http: 127.0.0.1:1111
join: [a:1, "b:2,c:3"]
min-members: 3
drain-delay: 2s
`)
	line := parse("serve", "--config", config)
	assert.Equal(t, address("127.0.0.1:1111"), line.Serve.HTTP)
	assert.Equal(t, []string{"a:1", "b:2,c:3"}, line.Serve.Join)
	assert.Equal(t, 3, line.Serve.MinMembers)
	assert.Equal(t, baseURL("http://127.0.0.1:1111"), parse("--config", config, "status").Status.HTTP)

	t.Setenv("PEERLIMIT_HTTP", "127.0.0.1:2222")
	t.Setenv("PEERLIMIT_JOIN", "d:4,e:5")
	t.Setenv("PEERLIMIT_CONFIG", config)
	line = parse("serve")
	assert.Equal(t, address("127.0.0.1:2222"), line.Serve.HTTP)
	assert.Equal(t, []string{"d:4", "e:5"}, line.Serve.Join)
	assert.Equal(t, 3, line.Serve.MinMembers, "not in the environment")

	line = parse("serve", "--http", "127.0.0.1:3333", "--join", "f:6", "--join", "g:7")
	assert.Equal(t, address("127.0.0.1:3333"), line.Serve.HTTP)
	assert.Equal(t, []string{"f:6", "g:7"}, line.Serve.Join)
}

func TestConfigurationFileRefusals(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"htp: 127.0.0.1:1\n", ":1: htp: is no flag of any command"},
		{"# x\nhttp: 127.0.0.1:1\nhttp: 127.0.0.1:2\n", ":3: http: is given twice"},
		{"\nhttp:\n  nested: 1\n", ":2: http: must be a value or a list of values"},
		{"http: [127.0.0.1:1]\n", ":1: takes one value, not a list"},
		{"http:\n", ":1: http: has no value"},
		{"join: [a:1, [b]]\n", ":1: join: must be a list of plain values"},
		{"http: nowhere\n", `:1: must be HOST:PORT, got "nowhere"`},
		{"min-members: many\n", `:1: expected a valid 64 bit int but got "many"`},
		{"- http\n", ":1: must be a mapping of flags to values"},
		{"config: other\n", ":1: config: is no flag of any command"},
		{"help: true\n", ":1: help: is no flag of any command"},
		{"a: b\n---\nc: d\n", "more than one document"},
		{"http: *x\n", "unknown anchor"},
		{"http: &a 127.0.0.1:1\nbind: *a\n", ":2: bind: must be a value or a list of values"},
		{"\tx", "file"},
	} {
		code, _, stderr := runNode(t, "serve", "--config", write(t, c.text))
		assert.Equal(t, exitUsage, code, "%q: %s", c.text, stderr)
		assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
		assert.Contains(t, stderr, c.want, c.text)
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add("http: 127.0.0.1:1\njoin: [a:1]\n")
	f.Add("a: &x [*x]\n")
	f.Add("? [a]\n: b\n")
	f.Fuzz(func(_ *testing.T, text string) {
		file := &configFile{path: "f", values: map[string]configValue{}}
		_ = file.parse([]byte(text)) // must not panic
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code := run(ctx, []string{"check", "k", "--limit", "1", "--period", "1s", "--http", "127.0.0.1:1"}, &out, &errs)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, errs.String(), "canceled")
}
