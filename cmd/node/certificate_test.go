package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// selfSigned writes a certificate and its key over two files.
func selfSigned(t *testing.T, name, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	}
}

func TestReloadTakesCertificatesAndTheirAuthority(t *testing.T) {
	certFile, keyFile := write(t, ""), write(t, "")
	selfSigned(t, "first", certFile, keyFile)
	command := &serveCommand{HTTP: "127.0.0.1:0", MinMembers: 1, TLSCert: certFile, TLSKey: keyFile, TLSCA: certFile}
	config, files, err := command.clusterConfig()
	require.NoError(t, err)
	used := config.TLS
	r := &reloader{serve: command, handler: newHandler(&tokens{}, nil), certificates: files, log: slog.New(slog.DiscardHandler),
		setTLS: func(to *tls.Config) error { used = to; return nil }}
	name := func() string { return used.Certificates[0].Leaf.Subject.CommonName }
	acceptsFile := func() bool {
		text, err := os.ReadFile(certFile)
		require.NoError(t, err)
		pool := x509.NewCertPool()
		require.True(t, pool.AppendCertsFromPEM(text))
		return used.RootCAs.Equal(pool) && used.ClientCAs.Equal(pool)
	}
	assert.Equal(t, "first", name())
	assert.True(t, acceptsFile())
	selfSigned(t, "second", certFile, keyFile)
	assert.False(t, acceptsFile(), "nobody asked for it yet")
	r.reload()
	assert.Equal(t, "second", name())
	assert.True(t, acceptsFile())
	selfSigned(t, "third", certFile, write(t, "")) // a certificate without its key
	r.reload()
	assert.Equal(t, "second", name())
	selfSigned(t, "fourth", certFile, keyFile)
	files.authority = keyFile // no certificate
	r.reload()
	assert.Equal(t, "second", name())
}
