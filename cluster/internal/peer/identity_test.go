package peer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"
)

func secretsOf(s ...string) [][]byte {
	var out [][]byte
	for _, x := range s {
		out = append(out, []byte(x))
	}
	return out
}

func withSecrets(s ...string) func(*Config) {
	return func(c *Config) { c.Secrets = secretsOf(s...) }
}

func TestIdentityIsDerivedFromSecretAndCluster(t *testing.T) {
	derive := func(cluster string, s ...string) *identities {
		ids, err := deriveIdentities(secretsOf(s...), cluster)
		if err != nil {
			t.Fatal(err)
		}
		return ids
	}
	a := derive("shop", "one", "two")
	if b := derive("shop", "one"); !bytes.Equal(a.accepted[0], b.accepted[0]) {
		t.Error("one secret gives two identities")
	}
	for _, c := range []struct {
		name string
		key  ed25519.PublicKey
		want bool
	}{
		{"the first", derive("shop", "one").accepted[0], true},
		{"the second", derive("shop", "two").accepted[0], true},
		{"another secret", derive("shop", "three").accepted[0], false},
		{"another cluster", derive("bank", "one").accepted[0], false},
		{"no key", nil, false},
		{"a part", a.accepted[0][:31], false},
	} {
		if got := a.accepts(c.key); got != c.want {
			t.Errorf("%s: accepted is %v", c.name, got)
		}
	}
}

func TestSecretsAreRotated(t *testing.T) {
	a, b := start(t, 1, withSecrets("old")), start(t, 2, withSecrets("old"))
	introduce(a, b)
	connected := func() bool { return a.Connected(2, LaneOps) && b.Connected(1, LaneOps) }
	eventually(t, "connected by the old secret", connected)
	for _, step := range [][]string{{"old", "new"}, {"new", "old"}} {
		for _, x := range []*Transport{a, b} {
			if err := x.SetSecrets(secretsOf(step...)); err != nil {
				t.Fatal(err)
			}
		}
		if !connected() {
			t.Fatalf("%v cost the connection", step)
		}
	}
	for _, x := range []*Transport{a, b} {
		if err := x.SetSecrets(secretsOf("new")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "connected by the new secret only", func() bool {
		for _, c := range append(a.allConns(), b.allConns()...) {
			if !a.security.accepts(c.nc) {
				return false
			}
		}
		return connected()
	})
	if err := a.SetSecrets(nil); err == nil {
		t.Error("secrets were taken away")
	}
	if err := start(t, 3, nil).SetSecrets(secretsOf("x")); err == nil {
		t.Error("a plain member was given a secret")
	}
}

// authority is a certificate authority of a test.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert: cert, key: key, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

// member is a configuration with a certificate of this authority.
func (a *authority) member(t testing.TB, name string) *tls.Config {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: a.pool,
	}
}

func TestCertificates(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	with := func(c *tls.Config) func(*Config) { return func(cfg *Config) { cfg.Certificates = c } }
	named := ours.member(t, "member")
	named.ServerName = "member"
	misnamed := ours.member(t, "member")
	misnamed.ServerName = "somebody"
	stranger := theirs.member(t, "member")
	stranger.RootCAs = ours.pool // it would accept us
	for _, c := range []struct {
		name string
		a, b *tls.Config
		ok   bool
	}{
		{"one authority", ours.member(t, "a"), ours.member(t, "b"), true},
		{"the right name", named, ours.member(t, "member"), true},
		{"another name", misnamed, ours.member(t, "member"), false},
		{"another authority dials", stranger, ours.member(t, "b"), false},
		{"another authority listens", ours.member(t, "b"), stranger, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := start(t, 1, with(c.a)), start(t, 2, with(c.b))
			b.HandleStream("x", echoStream)
			a.SetPeers(map[Boot]Peer{2: {Node: "b", Addr: b.Addr().String()}})
			s, err := a.DialStream(ctxFor(t, 5*time.Second), 2, "x")
			if (err == nil) != c.ok {
				t.Fatalf("got %v", err)
			}
			if err == nil {
				_ = s.Close()
				return
			}
			eventually(t, "one of the two counts it", func() bool {
				return a.Stats().Rejected[reasonSecret]+b.Stats().Rejected[reasonSecret] > 0
			})
		})
	}
}

func TestWithoutTheSecretNobodyIsHeard(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
	}{
		{"another secret", withSecrets("wrong")},
		{"another cluster", func(c *Config) { c.Secrets, c.Cluster = secretsOf("right"), "other" }},
		{"no secret", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := new(logLines)
			member := start(t, 1, func(c *Config) { c.Secrets, c.Logger = secretsOf("right"), log.logger() })
			other := start(t, 2, c.change)
			other.SetPeers(map[Boot]Peer{1: {Node: "member", Addr: member.Addr().String()}})
			_, err := other.Call(ctxFor(t, 5*time.Second), 1, "x", nil)
			if !errors.Is(err, ErrUnreachable) {
				t.Errorf("called: %v", err)
			}
			member.SetPeers(map[Boot]Peer{2: {Node: "other", Addr: other.Addr().String()}})
			if _, err := member.Call(ctxFor(t, 5*time.Second), 2, "x", nil); !errors.Is(err, ErrUnreachable) {
				t.Errorf("was called: %v", err)
			}
			eventually(t, "the member says why", func() bool { return log.count("peer refused", reasonSecret) > 0 })
		})
	}
}
