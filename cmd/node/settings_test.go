package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/peerlimit/peerlimit/cluster"
)

func TestPrintConfigTellsValuesAndTheirSources(t *testing.T) {
	const password = "a-password-of-the-database"
	secret, tokens := write(t, "a-secret-that-is-not-shown\n"), write(t, "a-token-that-is-not-shown\n")
	config := write(t, "zone: west\nmin-members: 3\nlog-level: warn\n")
	t.Setenv("PEERLIMIT_LOG_LEVEL", "error")
	t.Setenv("PEERLIMIT_SECRET_FILE", secret)
	t.Setenv("PEERLIMIT_KEY_STORE", "postgres://user:"+password+"@db/keys")
	code, stdout, stderr := runNode(t, "serve", "--print-config", "--config", config,
		"--join", "a:1", "--join", "b:2", "--api-token-file", tokens, "--leases", "off")
	require.Equal(t, exitDone, code, stderr)
	assert.Empty(t, stderr)
	lines := strings.Split(stdout, "\n")
	for _, want := range []string{
		"bind: 127.0.0.1:7946 # default",
		"# peer-bind: not set # default",
		"zone: west # " + config + ":1",
		"min-members: 3 # " + config + ":2",
		"log-level: error # $PEERLIMIT_LOG_LEVEL",
		"join: ['a:1', 'b:2'] # --join",
		`leases: "off" # --leases`,
		"drain-delay: 0s # default",
		"secret-file: " + secret + " # $PEERLIMIT_SECRET_FILE",
		"api-token-file: " + tokens + " # --api-token-file",
		"# key-store: set, and not shown: it may have a password # $PEERLIMIT_KEY_STORE",
	} {
		assert.Contains(t, lines, want)
	}
	for _, secret := range []string{password, "not-shown", "stop-with-stdin", "print-config"} {
		assert.NotContains(t, stdout, secret)
	}

	// What was printed says the same when it is the file.
	var before, after map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(stdout), &before))
	for _, name := range []string{"PEERLIMIT_LOG_LEVEL", "PEERLIMIT_SECRET_FILE"} {
		require.NoError(t, os.Unsetenv(name))
	}
	code, stdout, stderr = runNode(t, "serve", "--print-config", "--config", write(t, stdout))
	require.Equal(t, exitDone, code, stderr)
	require.NoError(t, yaml.Unmarshal([]byte(stdout), &after))
	assert.Equal(t, before, after)
	assert.Len(t, strings.Split(stdout, "\n"), len(lines), "each flag has its line")
}

func TestPrintConfigRefusesWhatServeWould(t *testing.T) {
	for _, args := range []string{"--http 0.0.0.0:0", "--secret-file /nonexistent", "--tls-cert /a --tls-key /b --tls-ca /c", "--drain-delay 6m"} {
		code, stdout, stderr := runNode(t, append([]string{"serve", "--print-config"}, strings.Fields(args)...)...)
		assert.Equal(t, exitUsage, code, args)
		assert.Empty(t, stdout)
		assert.Contains(t, stderr, "--", args)
	}
}

func TestErrorsNameTheSourceOfAValue(t *testing.T) {
	for _, c := range []struct{ flag, value, want string }{
		{"drain-delay", "6m", "must be 0s to 5m"},
		{"on-unavailable", "maybe", "must be one of"},
		{"min-members", "0", "must be 1 to 10000"},
		{"min-members", "many", "expected a valid 64 bit int"},
		{"http", "nowhere", "must be HOST:PORT"},
		{"secret-file", "/nonexistent", "no such file"},
		{"api-token-file", "/nonexistent", "no such file"},
		{"policies", "/nonexistent", "no such file"},
		{"cluster", "a/b", "must"},
		{"tls-cert", "/nonexistent", "all three"},
		{"key-store", "mysql:x", "must be memory"},
	} {
		file := write(t, "# first\n"+c.flag+": "+c.value+"\n")
		variable := "PEERLIMIT_" + strings.ToUpper(strings.ReplaceAll(c.flag, "-", "_"))
		ports := []string{"serve", "--bind=127.0.0.1:0"}
		if c.flag != "http" {
			ports = append(ports, "--http=127.0.0.1:0")
		}
		code, _, stderr := runNode(t, append(ports, "--config", file)...)
		assert.Equal(t, exitUsage, code, stderr)
		assert.Contains(t, stderr, "--"+c.flag, "the flag")
		assert.Contains(t, stderr, file+":2", "the source")
		assert.Contains(t, stderr, c.want, "the bound")

		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, c.value)
			code, _, stderr := runNode(t, ports...)
			assert.Equal(t, exitUsage, code, stderr)
			assert.Contains(t, stderr, "--"+c.flag)
			assert.Contains(t, stderr, variable)
			assert.Contains(t, stderr, c.want)
			assert.Equal(t, 1, strings.Count(stderr, "\n"))
		})
		code, _, stderr = runNode(t, append(ports, "--"+c.flag, c.value)...)
		assert.Equal(t, exitUsage, code)
		assert.NotContains(t, stderr, "(from", "it is the flag itself")
	}
}

// An embedding service reads the same variables as serve does, and they mean the
// same to both.
func TestTheEnvironmentMeansTheSameToServeAndToEmbedders(t *testing.T) {
	for name, value := range map[string]string{
		"CLUSTER": "shop", "NODE_ID": "n1", "ZONE": "west", "BIND": "127.0.0.1:1", "PEER_BIND": "127.0.0.1:2",
		"KV_BIND": "127.0.0.1:3", "ADVERTISE": "127.0.0.2", "JOIN": "a:1,b:2", "MIN_MEMBERS": "2",
		"SECRET_FILE": write(t, "the-first-secret-of-two\nthe-other-secret-of-two\n"),
	} {
		t.Setenv("PEERLIMIT_"+name, value)
	}
	embedded, err := cluster.ConfigFromEnv()
	require.NoError(t, err)
	var line commandLine
	parser, err := newParser(&line, os.Stdout, os.Stderr)
	require.NoError(t, err)
	_, err = parser.Parse([]string{"serve"})
	require.NoError(t, err)
	served, _, err := line.Serve.clusterConfig()
	require.NoError(t, err)
	embedded.DrainTimeout, served.DrainTimeout = 0, 0 // serve has no flag for it
	assert.Equal(t, embedded, served)
}
