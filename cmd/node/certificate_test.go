package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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

func TestReloadShowsTheNewCertificate(t *testing.T) {
	certFile, keyFile := write(t, ""), write(t, "")
	selfSigned(t, "first", certFile, keyFile)
	command := &serveCommand{HTTP: "127.0.0.1:0", MinMembers: 1, TLSCert: certFile, TLSKey: keyFile, TLSCA: certFile}
	config, shown, err := command.clusterConfig()
	require.NoError(t, err)
	names := func() (names [2]string) {
		server, err := config.TLS.GetCertificate(nil)
		require.NoError(t, err)
		client, err := config.TLS.GetClientCertificate(nil)
		require.NoError(t, err)
		return [2]string{server.Leaf.Subject.CommonName, client.Leaf.Subject.CommonName}
	}
	assert.Equal(t, [2]string{"first", "first"}, names())
	r := &reloader{serve: command, handler: newHandler(&tokens{}, nil), certificate: shown, log: slog.New(slog.DiscardHandler)}
	selfSigned(t, "second", certFile, keyFile)
	r.reload()
	assert.Equal(t, [2]string{"second", "second"}, names())
	selfSigned(t, "third", certFile, write(t, "")) // a certificate without its key
	r.reload()
	assert.Equal(t, [2]string{"second", "second"}, names())
}
