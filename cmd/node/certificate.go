package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"sync/atomic"
)

// certificate is what this member shows to others, read again when it is told
// to: certificates live for days where a machine issues them. The authority
// stays what it was at the start.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// read reads the two files. The error leaves no trace.
func (c *certificate) read() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, usagef("--tls-cert: can't be loaded with --tls-key: %v", err)
	}
	return &pair, nil
}

// config returns what the cluster takes in place of files.
func (c *certificate) config(authority string) (*tls.Config, error) {
	pem, err := os.ReadFile(authority)
	if err != nil {
		return nil, usagef("--tls-ca: %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usagef("--tls-ca: %s holds no certificate in PEM format", authority)
	}
	pair, err := c.read()
	if err != nil {
		return nil, err
	}
	c.current.Store(pair)
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		RootCAs:              pool,
		ClientCAs:            pool,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}, nil
}
