package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
)

// certificateFiles are what this member shows to others, and who signs what it
// accepts of them. They are read again when it is told to: certificates live for
// days where a machine issues them.
type certificateFiles struct{ cert, key, authority string }

// read returns what the cluster takes in place of files.
func (f *certificateFiles) read() (*tls.Config, error) {
	pem, err := os.ReadFile(f.authority)
	if err != nil {
		return nil, usagef("--tls-ca: %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usagef("--tls-ca: %s holds no certificate in PEM format", f.authority)
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, usagef("--tls-cert: can't be loaded with --tls-key: %v", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool}, nil
}
