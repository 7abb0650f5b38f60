package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
)

// security is how connections are authenticated: by derived identities, by certificates, or not at all. Which of the
// three it is stays what it was at the start.
type security struct {
	byCertificates bool
	now            atomic.Pointer[credentials] // nil: not at all
}

// credentials are what this member shows, and whom it accepts.
type credentials struct {
	tls *tls.Config
	// accepts says whether who has proven itself as the state says would be accepted by these.
	accepts func(tls.ConnectionState) bool
}

func newSecurity(cfg *Config) (*security, error) {
	s := new(security)
	var c *credentials
	var err error
	switch {
	case cfg.Certificates != nil:
		s.byCertificates = true
		c, err = credentialsOfCertificates(cfg.Certificates)
	case len(cfg.Secrets) > 0:
		c, err = credentialsOfSecrets(cfg.Secrets, cfg.Cluster)
	}
	if err != nil {
		return nil, err
	}
	s.now.Store(c)
	return s, nil
}

func credentialsOfSecrets(secrets [][]byte, cluster string) (*credentials, error) {
	ids, err := deriveIdentities(secrets, cluster)
	if err != nil {
		return nil, err
	}
	return &credentials{ids.tlsConfig(), func(cs tls.ConnectionState) bool { return ids.accepts(peerKey(cs)) }}, nil
}

func credentialsOfCertificates(given *tls.Config) (*credentials, error) {
	c, err := tlsByCertificates(given)
	if err != nil {
		return nil, err
	}
	return &credentials{c, func(cs tls.ConnectionState) bool {
		if c.VerifyConnection != nil && c.VerifyConnection(cs) != nil {
			return false
		}
		return given.InsecureSkipVerify || verifyChain(cs, c.RootCAs, c.ClientCAs) == nil
	}}, nil
}

// plain says that connections are neither encrypted nor authenticated.
func (s *security) plain() bool { return s.now.Load() == nil }

// secure completes TLS on a connection just made, within the context.
func (s *security) secure(ctx context.Context, nc net.Conn, dialed bool) (secured net.Conn, err error) {
	c := s.now.Load()
	if c == nil {
		return nc, nil
	}
	var tc *tls.Conn
	if dialed {
		tc = tls.Client(nc, c.tls)
	} else {
		tc = tls.Server(nc, c.tls)
	}
	if err := tc.HandshakeContext(ctx); err != nil {
		if reasonOf(err) != "" {
			return nil, err
		}
		var alert tls.AlertError
		var op *net.OpError
		switch {
		case errors.As(err, &alert), errors.As(err, &op) && op.Op == "remote error":
			err = fmt.Errorf("it does not accept this member's secret, certificate or cluster name: %w", err)
		case errors.As(err, &op):
			return nil, err
		}
		return nil, refuse(reasonSecret, err)
	}
	return tc, nil
}

// accepts says whether the other side of a connection, which was accepted when that began, still would be. It is asked
// again once the connection is where withdraw finds it, or one that was being made meanwhile would stay.
func (s *security) accepts(nc net.Conn) bool {
	c := s.now.Load()
	tc, ok := nc.(*tls.Conn)
	return c == nil || ok && c.accepts(tc.ConnectionState())
}

var errWithdrawn = refuse(reasonSecret, errors.New("its secret or certificate is no longer accepted"))

// SetSecrets replaces the secrets: the first is shown from now on, all are accepted. Connections whose other side has
// shown one no longer among them are made anew, and then closed, in 2 s ([Config.HandshakeTimeout]) at the latest, as
// are those that were being made, once they are; streams are closed at once. To rotate, add the new secret last on
// every member, then move it first on every member, then remove the old one: so no frame is lost. A member that began
// plain or with certificates can't change to secrets.
func (t *Transport) SetSecrets(secrets [][]byte) error {
	if t.security.plain() || t.security.byCertificates {
		return errors.New("peer: secrets can only be replaced where there were some")
	}
	c, err := credentialsOfSecrets(secrets, t.cfg.Cluster)
	if err != nil {
		return err
	}
	t.security.now.Store(c)
	t.withdraw()
	return nil
}

// SetCertificates replaces [Config.Certificates], with what SetSecrets says of connections whose other side is no
// longer accepted. To change the authority, accept both on every member, then give every member its new certificate,
// then accept the new one only. A member that began without certificates can't get some.
func (t *Transport) SetCertificates(given *tls.Config) error {
	if !t.security.byCertificates {
		return errors.New("peer: certificates can only be replaced where there were some")
	}
	c, err := credentialsOfCertificates(given)
	if err != nil {
		return err
	}
	t.security.now.Store(c)
	t.withdraw()
	return nil
}
