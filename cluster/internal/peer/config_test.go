package peer

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"
)

func TestConfigIsValidated(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"Self":                   func(c *Config) { c.Self = 0 },
		"Node":                   func(c *Config) { c.Node = "" },
		"Cluster":                func(c *Config) { c.Cluster = "" },
		"Bind must be host:port": func(c *Config) { c.Bind = "nowhere" },
		"is not loopback":        func(c *Config) { c.Bind = "0.0.0.0:0" },
		`":0" is not loopback`:   func(c *Config) { c.Bind = ":0" },
		"Secrets[1]":             func(c *Config) { c.Secrets = [][]byte{[]byte("x"), nil} },
		"Silence must be at":     func(c *Config) { c.Silence = time.Millisecond },
		"CallTimeout":            func(c *Config) { c.CallTimeout = -1 },
		"MaxQueue":               func(c *Config) { c.MaxQueue = 100 },
		"MaxInFlight":            func(c *Config) { c.MaxInFlight = -1 },
		"RootCAs or ClientCAs":   func(c *Config) { c.Certificates = new(tls.Config) },
		"a certificate of its":   func(c *Config) { c.Certificates = &tls.Config{RootCAs: newAuthority(t).pool} },
		"without a verification": func(c *Config) { c.Certificates = skipping(t) },
	} {
		cfg := Config{Self: 1, Node: "n", Cluster: "c", Bind: "127.0.0.1:0"}
		change(&cfg)
		tr, err := Listen(cfg)
		if err == nil {
			_ = tr.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}

func skipping(t *testing.T) *tls.Config {
	c := newAuthority(t).member(t, "x")
	c.InsecureSkipVerify = true
	return c
}

func TestOpenBindNeedsASecret(t *testing.T) {
	cfg := Config{Self: 1, Node: "n", Cluster: "c", Bind: "0.0.0.0:0", Secrets: [][]byte{[]byte("secret")}}
	tr, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
}

func TestPlainDialsLoopbackOnly(t *testing.T) {
	tr := start(t, 1, nil)
	if _, err := tr.dialRaw(t.Context(), "192.0.2.1:7947"); err == nil || !strings.Contains(err.Error(), "not loopback") {
		t.Fatalf("got %v", err)
	}
}
