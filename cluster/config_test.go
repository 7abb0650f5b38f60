package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConfigDefaults(t *testing.T) {
	c := Config{}.withDefaults()
	require.NoError(t, c.validate())
	assert.Equal(t, "peerlimit", c.ClusterName)
	assert.Equal(t, "127.0.0.1:7946", c.Bind)
	assert.Equal(t, "127.0.0.1:7947", c.PeerBind)
	assert.Equal(t, "127.0.0.1:7948", c.KVBind)
	assert.Equal(t, 1, c.MinMembers)
	assert.Equal(t, 2*time.Second, c.JoinTimeout)
	assert.Equal(t, 10*time.Second, c.DrainTimeout)
	assert.Equal(t, DefaultTimings(), c.Timings)
	assert.NotEmpty(t, c.NodeID)
	assert.NotEmpty(t, c.Version)
	assert.NotNil(t, c.Logger)

	c = Config{Bind: "[::1]:0", Timings: Timings{Call: time.Second}}.withDefaults()
	require.NoError(t, c.validate())
	assert.Equal(t, "[::1]:0", c.PeerBind)
	assert.Equal(t, "[::1]:0", c.KVBind)
	assert.Equal(t, time.Second, c.Timings.Call)
	assert.Equal(t, 150*time.Millisecond, c.Timings.Grant)

	c = Config{Bind: ":8000", Secret: []byte("s")}.withDefaults()
	require.NoError(t, c.validate())
	assert.Equal(t, ":8001", c.PeerBind)
	assert.Equal(t, [][]byte{[]byte("s")}, c.Secrets)
	assert.True(t, strings.HasSuffix(c.NodeID, "-8000"), "two members on one host have two IDs: %s", c.NodeID)
}

func TestConfigOfTheCallerIsNotChanged(t *testing.T) {
	given := Config{Join: []string{"a:1"}, Secrets: [][]byte{[]byte("one"), []byte("two")}}
	before := Config{Join: []string{"a:1"}, Secrets: [][]byte{[]byte("one"), []byte("two")}}
	c := given.withDefaults()
	assert.Equal(t, before, given)
	c.Join[0], c.Secrets[0][0], c.Secrets[1] = "changed", 'X', nil
	assert.Equal(t, before, given)
}

func TestConfigErrorsNameTheFieldAndTheBound(t *testing.T) {
	long := strings.Repeat("x", 65)
	for _, c := range []struct {
		field, want string
		edit        func(*Config)
	}{
		{"ClusterName", "1 to 64", func(c *Config) { c.ClusterName = long }},
		{"ClusterName", "A-Z, a-z", func(c *Config) { c.ClusterName = "a/b" }},
		{"NodeID", "1 to 64", func(c *Config) { c.NodeID = "a b" }},
		{"Zone", "at most 64", func(c *Config) { c.Zone = long }},
		{"Zone", "without spaces", func(c *Config) { c.Zone = "zone one" }},
		{"Version", "at most 32", func(c *Config) { c.Version = long }},
		{"Bind", "host:port", func(c *Config) { c.Bind, c.PeerBind, c.KVBind = "nonsense", "127.0.0.1:0", "127.0.0.1:0" }},
		{"Bind", "between 0 and 65535", func(c *Config) { c.Bind, c.PeerBind, c.KVBind = "127.0.0.1:65536", "127.0.0.1:0", "127.0.0.1:0" }},
		{"PeerBind", "between 0 and 65535", func(c *Config) { c.Bind = "127.0.0.1:65535" }},
		{"PeerBind", "address of Bind too", func(c *Config) { c.Bind, c.PeerBind = "127.0.0.1:1", "127.0.0.1:1" }},
		{"Bind", "Secret must be set", func(c *Config) { c.Bind = ":7946" }},
		{"Bind", "Secret must be set", func(c *Config) { c.Bind = "0.0.0.0:7946" }},
		{"Bind", "Secret must be set", func(c *Config) { c.Bind = "example.com:7946" }},
		{"PeerBind", "Secret must be set", func(c *Config) { c.PeerBind = "[::]:1" }},
		{"KVBind", "Secret must be set", func(c *Config) { c.KVBind = "10.0.0.1:1" }},
		{"Advertise", "without a port", func(c *Config) { c.Advertise = "host:1" }},
		{"Advertise", "address of one host", func(c *Config) { c.Advertise = "0.0.0.0" }},
		{"Join", "between 1 and 65535", func(c *Config) { c.Join = []string{"ok:1", "host:0"} }},
		{"Join", "not host:port", func(c *Config) { c.Join = []string{""} }},
		{"Join", "port", func(c *Config) { c.Join = []string{"http://x"} }},
		{"Secrets", "only one of", func(c *Config) { c.Secret, c.Secrets = []byte("a"), [][]byte{[]byte("b")} }},
		{"Secrets", "number 2 is empty", func(c *Config) { c.Secrets = [][]byte{[]byte("a"), nil} }},
		{"Secrets", "at most 16", func(c *Config) { c.Secrets = make([][]byte, 17) }},
		{"TLSCert", "all three", func(c *Config) { c.TLSCert = "x" }},
		{"TLS", "RootCAs or ClientCAs", func(c *Config) { c.TLS = new(tls.Config) }},
		{"TLS", "Certificates or GetCertificate", func(c *Config) { c.TLS = &tls.Config{RootCAs: x509.NewCertPool()} }},
		{"TLS", "only one of", func(c *Config) { c.TLSCert, c.TLSKey, c.TLSCA, c.TLS = "a", "b", "c", new(tls.Config) }},
		{"MinMembers", "between 1 and 10000", func(c *Config) { c.MinMembers = -1 }},
		{"MinMembers", "between 1 and 10000", func(c *Config) { c.MinMembers = 10_001 }},
		{"JoinTimeout", "between 100ms and 10m0s", func(c *Config) { c.JoinTimeout = time.Millisecond }},
		{"DrainTimeout", "between 1ms and 1h0m0s", func(c *Config) { c.DrainTimeout = -time.Second }},
		{"Timings.Grant", "between 20ms and 1m0s", func(c *Config) { c.Timings.Grant = time.Millisecond }},
		{"Timings.Beat", "between 1ms and 50ms", func(c *Config) { c.Timings.Beat = time.Second }},
		{"Timings.Suspect", "above 30ms and below 150ms", func(c *Config) { c.Timings.Suspect = 20 * time.Millisecond }},
		{"Timings.Gap", "below 150ms", func(c *Config) { c.Timings.Gap = time.Second }},
		{"Timings.CopyEvery", "above 0s", func(c *Config) { c.Timings.CopyEvery = -1 }},
		{"Timings.Call", "above Grant", func(c *Config) { c.Timings.Call = 100 * time.Millisecond }},
	} {
		var cfg Config
		c.edit(&cfg)
		err := cfg.withDefaults().validate()
		var ce *ConfigError
		if assert.ErrorAs(t, err, &ce, "%s: %s", c.field, c.want) {
			assert.Equal(t, c.field, ce.Field)
			assert.ErrorContains(t, err, "cluster: Config."+c.field)
			assert.ErrorContains(t, err, c.want)
		}
	}
}

func TestNoSecretIsNeededOnLoopback(t *testing.T) {
	for _, bind := range []string{"127.0.0.1:7946", "127.9.8.7:1", "[::1]:7946", "localhost:7946", "[::ffff:127.0.0.1]:7946"} {
		assert.NoError(t, Config{Bind: bind}.withDefaults().validate(), bind)
	}
}

func TestConfigFromEnv(t *testing.T) {
	secrets := filepath.Join(t.TempDir(), "secrets")
	require.NoError(t, os.WriteFile(secrets, []byte("first one \r\n\n  second\n"), 0o600))
	env := map[string]string{
		"PEERLIMIT_CLUSTER": "shop", "PEERLIMIT_NODE_ID": "api-1", "PEERLIMIT_ZONE": "eu-1a",
		"PEERLIMIT_BIND": ":7946", "PEERLIMIT_PEER_BIND": ":1", "PEERLIMIT_KV_BIND": ":2",
		"PEERLIMIT_ADVERTISE": "10.0.0.1", "PEERLIMIT_JOIN": " a:1, b.svc ,,[::1]:3",
		"PEERLIMIT_SECRET_FILE": secrets, "PEERLIMIT_MIN_MEMBERS": "2",
		"PEERLIMIT_JOIN_TIMEOUT": "3s", "PEERLIMIT_DRAIN_TIMEOUT": "1m",
		"PEERLIMIT_TLS_CERT": "c", "PEERLIMIT_TLS_KEY": "k", "PEERLIMIT_TLS_CA": "ca",
	}
	for name, v := range env {
		t.Setenv(name, v)
	}
	c, err := ConfigFromEnv()
	require.NoError(t, err)
	assert.Equal(t, Config{
		ClusterName: "shop", NodeID: "api-1", Zone: "eu-1a", Bind: ":7946", PeerBind: ":1", KVBind: ":2",
		Advertise: "10.0.0.1", Join: []string{"a:1", "b.svc", "[::1]:3"},
		Secrets:    [][]byte{[]byte("first one"), []byte("second")},
		MinMembers: 2, JoinTimeout: 3 * time.Second, DrainTimeout: time.Minute,
		TLSCert: "c", TLSKey: "k", TLSCA: "ca",
	}, c)
	assert.Len(t, envNames, len(env), "a variable without a test")

	c, err = configFrom(func(string) string { return "" })
	require.NoError(t, err)
	assert.True(t, reflect.DeepEqual(Config{}, c))
}

func TestConfigFromEnvNamesTheVariable(t *testing.T) {
	dir := t.TempDir()
	empty, big := filepath.Join(dir, "empty"), filepath.Join(dir, "big")
	require.NoError(t, os.WriteFile(empty, []byte("\n \n"), 0o600))
	require.NoError(t, os.WriteFile(big, make([]byte, 65<<10), 0o600))
	for _, c := range []struct{ name, value, want string }{
		{"PEERLIMIT_BIND", "here", "host:port"},
		{"PEERLIMIT_BIND", ":7946", "so PEERLIMIT_SECRET_FILE must be set"},
		{"PEERLIMIT_JOIN", "a:1,b:x", "port"},
		{"PEERLIMIT_MIN_MEMBERS", "two", "a number from 1 to 10000"},
		{"PEERLIMIT_MIN_MEMBERS", "0", "a number from 1 to 10000"},
		{"PEERLIMIT_MIN_MEMBERS", "20000", "between 1 and 10000"},
		{"PEERLIMIT_JOIN_TIMEOUT", "5", "a duration above 0"},
		{"PEERLIMIT_JOIN_TIMEOUT", "1ms", "between 100ms and 10m0s"},
		{"PEERLIMIT_DRAIN_TIMEOUT", "-1s", "a duration above 0"},
		{"PEERLIMIT_SECRET_FILE", filepath.Join(dir, "none"), "no such file"},
		{"PEERLIMIT_SECRET_FILE", empty, "holds no secret"},
		{"PEERLIMIT_SECRET_FILE", big, "at most 65536"},
		{"PEERLIMIT_NODE_ID", "a b", "1 to 64"},
		{"PEERLIMIT_TLS_CERT", "x", "PEERLIMIT_TLS_KEY and PEERLIMIT_TLS_CA must be set"},
	} {
		_, err := configFrom(func(name string) string {
			if name == c.name {
				return c.value
			}
			return ""
		})
		assert.ErrorContains(t, err, "cluster: "+c.name+": ", c.value)
		assert.ErrorContains(t, err, c.want)
	}
}

func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.pem")
	require.NoError(t, os.WriteFile(junk, []byte("not PEM"), 0o600))
	_, err := Config{TLSCert: junk, TLSKey: junk, TLSCA: junk}.certificates()
	assert.ErrorContains(t, err, "Config.TLSCert")
	got, err := Config{}.certificates()
	require.NoError(t, err)
	assert.Nil(t, got)
}
