package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// authority signs members' certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{}
	a.certificate, a.key = a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// sign signs a certificate with a new key; the first is the authority's own.
func (a *authority) sign(t testing.TB, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return certificate, key
}

// tlsFiles are what --tls-cert, --tls-key and --tls-ca name.
type tlsFiles struct{ certificate, key, authority string }

func newTLSFiles(t testing.TB) tlsFiles {
	dir := t.TempDir()
	return tlsFiles{filepath.Join(dir, "member.pem"), filepath.Join(dir, "member.key"), filepath.Join(dir, "authority.pem")}
}

func (f tlsFiles) args() []string {
	return []string{"--tls-cert=" + f.certificate, "--tls-key=" + f.key, "--tls-ca=" + f.authority}
}

// write fills the files with a new certificate of one authority, and with those
// that are accepted.
func (f tlsFiles) write(t testing.TB, of *authority, accepted ...*authority) {
	t.Helper()
	certificate, key := of.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "member"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	var authorities []byte
	for _, a := range accepted {
		authorities = append(authorities, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})...)
	}
	for path, text := range map[string][]byte{
		f.certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}),
		f.key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		f.authority:   authorities,
	} {
		require.NoError(t, os.WriteFile(path, text, 0o600))
	}
}

// The authority that signs the members' certificates is replaced while they
// serve, and no call fails; who has a certificate of the old one only is refused
// from then on.
func TestAuthorityIsReplacedWithoutARestart(t *testing.T) {
	t.Parallel()
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	files := newTLSFiles(t)
	files.write(t, first, first)
	cluster := NewCluster(t, 3, MemberOptions{Args: files.args()})
	members := cluster.Members()
	control := StartControl(t)
	load := StartLoad(t, members, LoadOptions{Callers: 3, Pause: 2 * time.Millisecond, Body: func(n uint64) []byte {
		return Check{Key: fmt.Sprint("k", n%300), Policy: "authority", Limit: 1_000_000, Period: "24h"}.Body()
	}})
	load.AwaitEnded(300)
	for _, step := range []func(){
		func() { files.write(t, first, first, second) },
		func() { files.write(t, second, first, second) },
		func() { files.write(t, second, second) },
	} {
		step()
		hangUp(t, members)
		load.AwaitEnded(300)
		require.NoError(t, cluster.OneRing())
	}
	newcomer := cluster.Options()
	cluster.Launch(newcomer).AwaitReady()
	cluster.AwaitOneRing(startTimeout)
	report := load.Stop()
	t.Logf("three steps: %v; %s", report.Counts(), control.Summary())
	requireUndisturbed(t, report, control)

	old := newTLSFiles(t)
	old.write(t, first, first, second)
	outsider := cluster.Options()
	outsider.Args = old.args()
	LaunchMember(t, outsider).AwaitLog(startTimeout, `msg="peer refused"`, "reason=secret")
	members[0].AwaitLog(startTimeout, `msg="peer refused"`, "reason=secret", "unknown authority")
}

// requireUndisturbed fails the test for calls that failed, were denied, or were
// decided degraded while the machine was well.
func requireUndisturbed(t testing.TB, report *LoadReport, control *Control) {
	t.Helper()
	for _, c := range report.Failures() {
		t.Error(c)
	}
	assert.Zero(t, report.Counts().Denied)
	for _, c := range report.Calls {
		if c.Degraded && !control.Excuses(c.Span()) {
			t.Errorf("degraded: %v", c)
		}
	}
}
