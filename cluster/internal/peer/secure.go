package peer

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
)

// security is how connections are authenticated: by derived identities, by certificates, or not at all.
type security struct {
	ids          atomic.Pointer[identities] // nil: not by secrets
	certificates *tls.Config                // nil: not by certificates
}

func newSecurity(cfg *Config) (*security, error) {
	s := new(security)
	if cfg.Certificates != nil {
		c, err := tlsByCertificates(cfg.Certificates)
		if err != nil {
			return nil, err
		}
		s.certificates = c
	} else if len(cfg.Secrets) > 0 {
		ids, err := deriveIdentities(cfg.Secrets, cfg.Cluster)
		if err != nil {
			return nil, err
		}
		s.ids.Store(ids)
	}
	return s, nil
}

// plain says that connections are neither encrypted nor authenticated.
func (s *security) plain() bool { return s.certificates == nil && s.ids.Load() == nil }

func (s *security) config() *tls.Config {
	if s.certificates != nil {
		return s.certificates
	}
	return s.ids.Load().tlsConfig()
}

// secure completes TLS on a connection just made, within the context. key is the derived public key by which the
// other side was accepted, nil without secrets.
func (s *security) secure(ctx context.Context, nc net.Conn, dialed bool) (secured net.Conn, key ed25519.PublicKey, err error) {
	if s.plain() {
		return nc, nil, nil
	}
	var tc *tls.Conn
	if dialed {
		tc = tls.Client(nc, s.config())
	} else {
		tc = tls.Server(nc, s.config())
	}
	if err := tc.HandshakeContext(ctx); err != nil {
		if reasonOf(err) != "" {
			return nil, nil, err
		}
		var alert tls.AlertError
		var op *net.OpError
		switch {
		case errors.As(err, &alert), errors.As(err, &op) && op.Op == "remote error":
			err = fmt.Errorf("it does not accept this member's secret, certificate or cluster name: %w", err)
		case errors.As(err, &op):
			return nil, nil, err
		}
		return nil, nil, refuse(reasonSecret, err)
	}
	return tc, peerKey(tc.ConnectionState()), nil
}

// stillAccepts says whether a key that was accepted when its connection began still is. It is asked again once the
// connection is where SetSecrets finds it, or one that was being made while the secrets changed would stay.
func (s *security) stillAccepts(key ed25519.PublicKey) bool {
	ids := s.ids.Load()
	return ids == nil || ids.accepts(key)
}

var errWithdrawn = refuse(reasonSecret, errors.New("its secret is no longer accepted"))

// SetSecrets replaces the secrets: the first is shown from now on, all are accepted, and connections that were
// authenticated by one no longer among them are closed. To rotate, add the new secret last on every member, then move
// it first on every member, then remove the old one. A member that began plain or with certificates can't change to
// secrets.
func (t *Transport) SetSecrets(secrets [][]byte) error {
	if t.security.ids.Load() == nil {
		return errors.New("peer: secrets can only be replaced where there were some")
	}
	ids, err := deriveIdentities(secrets, t.cfg.Cluster)
	if err != nil {
		return err
	}
	t.security.ids.Store(ids)
	for _, c := range t.allConns() {
		if !ids.accepts(c.key) {
			c.fail(errWithdrawn)
		}
	}
	t.streams.closeIf(func(s *stream) bool { return !ids.accepts(s.key) })
	return nil
}
