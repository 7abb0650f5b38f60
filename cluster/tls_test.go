package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// authority signs certificates for members, and writes them to files.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // of its own certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	_, a.file, _ = a.sign(t, "ca", a.cert)
	return a
}

// sign returns the files of a certificate and its key.
func (a *authority) sign(t *testing.T, name string, template *x509.Certificate) (cert *x509.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	if a.key == nil {
		a.key = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return cert, certFile, keyFile
}

// member returns what gives a member a certificate of this authority.
func (a *authority) member(t *testing.T, name string) func(*Config) {
	t.Helper()
	_, cert, key := a.sign(t, name, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return func(c *Config) { c.TLSCert, c.TLSKey, c.TLSCA = cert, key, a.file }
}

func TestCertificatesBetweenPeers(t *testing.T) {
	t.Parallel()
	ours, other := newAuthority(t), newAuthority(t)
	echo := func(_ context.Context, _ Member, p []byte) ([]byte, error) { return p, nil }
	a, _ := testNode(t, "a", ours.member(t, "a"))
	files := Config{}
	ours.member(t, "b")(&files)
	given, err := files.certificates()
	require.NoError(t, err)
	assert.Equal(t, uint16(tls.VersionTLS13), given.MinVersion)
	b, _ := testNode(t, "b", func(c *Config) { c.TLS = given }, a)
	eventually(t, 5*time.Second, "joined", func() bool { return together(a, b) })
	a.Handle("echo", echo)
	answer, err := b.Call(context.Background(), a.Self(), "echo", []byte("x"))
	require.NoError(t, err)
	assert.Equal(t, "x", string(answer))

	// It has the secret, so it is in the list, but nobody lets it call.
	c, _ := testNode(t, "c", other.member(t, "c"), a)
	eventually(t, 5*time.Second, "joined", func() bool { return together(a, b, c) })
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err = c.Call(ctx, a.Self(), "echo", nil)
	assert.Error(t, err)
	b.Handle("echo", echo)
	c.Handle("echo", echo)
	assert.Equal(t, []string{"c"}, a.Broadcast(ctx, "echo", nil).Unreached)
	require.NoError(t, a.SetSecrets([][]byte{testSecret, []byte("another one, for gossip")}))
}

func TestCertificateFilesThatDoNotFit(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	var c, d Config
	ours.member(t, "a")(&c)
	other.member(t, "a")(&d)
	_, err := Config{TLSCert: c.TLSCert, TLSKey: d.TLSKey, TLSCA: c.TLSCA}.certificates()
	assert.ErrorContains(t, err, "Config.TLSCert")
	_, err = Config{TLSCert: c.TLSCert, TLSKey: c.TLSKey, TLSCA: c.TLSKey}.certificates()
	assert.ErrorContains(t, err, "Config.TLSCA")
	_, err = Config{TLSCert: c.TLSCert, TLSKey: c.TLSKey, TLSCA: "/nonexistent"}.certificates()
	assert.ErrorContains(t, err, "Config.TLSCA")
	_, err = Start(context.Background(), Config{Bind: "127.0.0.1:0", TLSCert: c.TLSCert, TLSKey: d.TLSKey, TLSCA: c.TLSCA})
	assert.Error(t, err)
}

// The authority is another one in the end, and all the while the two call each
// other.
func TestAuthorityOfARunningCluster(t *testing.T) {
	t.Parallel()
	first, second := newAuthority(t), newAuthority(t)
	certificate := func(of *authority, accepted ...*authority) *tls.Config {
		var files Config
		of.member(t, "member")(&files)
		c, err := files.certificates()
		require.NoError(t, err)
		c.RootCAs = x509.NewCertPool()
		for _, a := range accepted {
			pem, err := os.ReadFile(a.file)
			require.NoError(t, err)
			require.True(t, c.RootCAs.AppendCertsFromPEM(pem))
		}
		c.ClientCAs = c.RootCAs
		return c
	}
	a, _ := testNode(t, "a", func(c *Config) { c.TLS = certificate(first, first) })
	b, _ := testNode(t, "b", first.member(t, "b"), a)
	eventually(t, 5*time.Second, "joined", func() bool { return together(a, b) })
	a.Handle("echo", func(_ context.Context, _ Member, p []byte) ([]byte, error) { return p, nil })
	call := func() error {
		_, err := b.Call(context.Background(), a.Self(), "echo", nil)
		return err
	}
	require.NoError(t, call())
	for _, step := range []*tls.Config{certificate(first, first, second), certificate(second, first, second), certificate(second, second)} {
		for _, n := range []*Node{a, b} {
			require.NoError(t, n.SetTLS(step))
			require.NoError(t, call())
		}
	}
	c, _ := testNode(t, "c", func(c *Config) { c.TLS = certificate(second, second) }, a)
	eventually(t, 5*time.Second, "joined", func() bool { return together(a, b, c) })
	_, err := c.Call(context.Background(), a.Self(), "echo", nil)
	require.NoError(t, err)

	assert.ErrorContains(t, a.SetTLS(nil), "can't cease")
	assert.ErrorContains(t, a.SetTLS(new(tls.Config)), "RootCAs or ClientCAs")
	d, _ := testNode(t, "d", nil)
	assert.ErrorContains(t, d.SetTLS(certificate(first, first)), "where there were some")
}
