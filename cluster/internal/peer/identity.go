package peer

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// identities are what the secrets of a cluster give: the key pair this member shows, and the public keys it accepts.
// All members with one secret derive the same pair, so having it is being a member, and TLS 1.3 proves it both ways
// without sending anything of it.
type identities struct {
	own      tls.Certificate
	accepted []ed25519.PublicKey
}

// deriveIdentities derives the keys of all secrets, for this cluster only: the same secret in another cluster gives
// others. The derivation is HKDF with SHA-256 (RFC 5869); salt and info keep it apart from other uses of the secret.
func deriveIdentities(secrets [][]byte, cluster string) (*identities, error) {
	if len(secrets) == 0 {
		return nil, errors.New("peer: Secrets must not be empty")
	}
	ids := new(identities)
	for i, secret := range secrets {
		if len(secret) == 0 {
			return nil, fmt.Errorf("peer: Secrets[%d] must not be empty", i)
		}
		seed, err := hkdf.Key(sha256.New, secret, []byte(cluster), "peerlimit peer identity v1", ed25519.SeedSize)
		if err != nil {
			return nil, fmt.Errorf("peer: derive identity: %w", err)
		}
		key := ed25519.NewKeyFromSeed(seed)
		if i == 0 {
			if ids.own, err = selfSigned(key); err != nil {
				return nil, fmt.Errorf("peer: sign identity: %w", err)
			}
		}
		ids.accepted = append(ids.accepted, key.Public().(ed25519.PublicKey))
	}
	return ids, nil
}

// selfSigned wraps a key in the certificate that TLS wants. Nobody reads anything of it but the public key; it names
// nothing, and its dates are constants so that clocks don't matter.
func selfSigned(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "peerlimit"},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2999, 12, 31, 0, 0, 0, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// accepts says whether key is derived from one of the secrets. It looks at all of them, in constant time.
func (ids *identities) accepts(key ed25519.PublicKey) bool {
	found := 0
	for _, k := range ids.accepted {
		found |= subtle.ConstantTimeCompare(k, key)
	}
	return found == 1
}

// peerKey is the public key that the other side has proven to hold, nil if it is of another kind.
func peerKey(cs tls.ConnectionState) ed25519.PublicKey {
	if len(cs.PeerCertificates) == 0 {
		return nil
	}
	key, _ := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	return key
}

// tlsByIdentity is the configuration for both sides of a connection authenticated by derived identities. The usual
// verification of chains and names is replaced, not left out: only the keys count.
func (ids *identities) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{ids.own},
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if !ids.accepts(peerKey(cs)) {
				return refuse(reasonSecret, errors.New("it has another secret or cluster name"))
			}
			return nil
		},
		NextProtos:                  []string{alpn},
		SessionTicketsDisabled:      true, // each connection proves itself anew, so that a withdrawn secret is out at once
		DynamicRecordSizingDisabled: true, // our writes are batches, not pages for a browser
	}
}

const alpn = "peerlimit"

// tlsByCertificates completes the caller's configuration: TLS 1.3, both sides verified.
func tlsByCertificates(given *tls.Config) (*tls.Config, error) {
	c := given.Clone()
	if c.RootCAs == nil {
		c.RootCAs = c.ClientCAs
	}
	if c.ClientCAs == nil {
		c.ClientCAs = c.RootCAs
	}
	if c.RootCAs == nil {
		// The system's authorities vouch for everybody, so they would make everybody a member.
		return nil, errors.New("peer: Certificates must have RootCAs or ClientCAs")
	}
	if len(c.Certificates) == 0 && (c.GetCertificate == nil || c.GetClientCertificate == nil) {
		return nil, errors.New("peer: Certificates must have a certificate of its own")
	}
	c.MinVersion = tls.VersionTLS13
	c.MaxVersion = 0
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.NextProtos = []string{alpn}
	c.SessionTicketsDisabled = true
	c.ClientSessionCache = nil
	c.DynamicRecordSizingDisabled = true
	c.GetConfigForClient = nil
	if c.ServerName == "" && !c.InsecureSkipVerify {
		// Members are dialed by address, which their certificates need not name. The chain is verified all the same.
		roots, before := c.RootCAs, c.VerifyConnection
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			if err := verifyChain(cs, roots, c.ClientCAs); err != nil {
				return err
			}
			if before != nil {
				return before(cs)
			}
			return nil
		}
	} else if c.InsecureSkipVerify && c.VerifyConnection == nil && c.VerifyPeerCertificate == nil {
		return nil, errors.New("peer: Certificates must not have InsecureSkipVerify without a verification of its own")
	}
	return c, nil
}

// verifyChain accepts a leaf that leads to one of the roots.
func verifyChain(cs tls.ConnectionState, roots, clients *x509.CertPool) error {
	if len(cs.PeerCertificates) == 0 {
		return refuse(reasonSecret, errors.New("it showed no certificate"))
	}
	rest := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		rest.AddCert(c)
	}
	var err error
	for _, pool := range []*x509.CertPool{roots, clients} {
		if _, err = cs.PeerCertificates[0].Verify(x509.VerifyOptions{
			Roots: pool, Intermediates: rest, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		}); err == nil {
			return nil
		}
	}
	return refuse(reasonSecret, err)
}
