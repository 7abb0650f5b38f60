package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Config says how a member talks to others. Self, Node, Cluster and Bind are required. Zero values take the defaults
// given. It is not changed.
type Config struct {
	Self    Boot   // this process life; not zero
	Node    string // stable node ID
	Cluster string // name; a member of another cluster is refused
	Bind    string // host:port to listen on; port 0 takes a free one

	// Secrets make TLS 1.3 with an identity derived from them mandatory: the first is this member's, any of them is
	// accepted, so that they can be rotated. Use 32 random bytes: whoever can connect can guess a weak one at leisure.
	// With neither Secrets nor Certificates everything is plain, which is refused other than on loopback.
	Secrets [][]byte
	// Certificates take the place of the derived identity: mutual TLS 1.3 by this configuration's own certificate,
	// RootCAs (who may be dialed) and ClientCAs (who may dial); one of the two missing means the same as the other.
	// Any certificate of that authority is a member, whatever its name, unless ServerName is set.
	Certificates *tls.Config

	Logger *slog.Logger // nil: silent

	// Listen and Dial replace TCP, for tests in memory. With Listen set, plain is allowed on any address.
	Listen func(address string) (net.Listener, error)
	Dial   func(ctx context.Context, address string) (net.Conn, error)

	// Message receives frames of types TypeUser and above, on the connection's reader: it must not wait, and all frames
	// of that connection wait for it. nil: such frames are malformed.
	Message func(from Boot, m Message)
	// Down is called when frames may have been lost, after all that came before the loss was received. It must not wait.
	Down func(Loss)
	// Breaker is called on each change of a peer's breaker, in order, with no lock held.
	Breaker func(BreakerChange)

	HandshakeTimeout time.Duration // for TCP, TLS and hello together; default 2 s
	CallTimeout      time.Duration // of Call and Broadcast when the context has no earlier deadline; default 2 s
	// Silence after which a connection that answers no ping is dead; default 800 ms, at least 100 ms. Five times as
	// long on LaneBulk and LaneCalls, where pings queue behind large frames.
	Silence time.Duration
	// UnlistedIdle is how long a connection of a boot that membership has not named may carry no frame; default 30 s.
	UnlistedIdle time.Duration

	MaxQueue           int // bytes waiting to be written a connection; default 4 MiB, at least MaxFrame
	MaxUnauthenticated int // connections that have not yet said a valid hello; default 256. The oldest makes room
	MaxPerSource       int // of these from one address (an IPv6 /64); default 64
	MaxConnections     int // connections accepted, streams included; default 4,096
	MaxInFlight        int // calls waiting for an answer a peer; default 4,096
	MaxHandlers        int // calls running here a kind; default 64
	MaxHandlerQueue    int // calls waiting to run a kind; default 1,024

	versions versionRange // spoken; tests pretend to be older or newer
}

func (c Config) withDefaults() Config {
	setDuration := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	setInt := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	setDuration(&c.HandshakeTimeout, 2*time.Second)
	setDuration(&c.CallTimeout, 2*time.Second)
	setDuration(&c.Silence, 800*time.Millisecond)
	setDuration(&c.UnlistedIdle, 30*time.Second)
	setInt(&c.MaxQueue, 4<<20)
	setInt(&c.MaxUnauthenticated, 256)
	setInt(&c.MaxPerSource, 64)
	setInt(&c.MaxConnections, 4096)
	setInt(&c.MaxInFlight, 4096)
	setInt(&c.MaxHandlers, 64)
	setInt(&c.MaxHandlerQueue, 1024)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.versions == (versionRange{}) {
		c.versions = versionRange{oldest: OldestVersion, newest: Version}
	}
	return c
}

func (c *Config) validate() error {
	if c.Self == 0 {
		return errors.New("peer: Self must not be zero")
	}
	if c.Node == "" {
		return errors.New("peer: Node must not be empty")
	}
	if c.Cluster == "" {
		return errors.New("peer: Cluster must not be empty")
	}
	for i, s := range c.Secrets {
		if len(s) == 0 {
			return fmt.Errorf("peer: Secrets[%d] must not be empty", i)
		}
	}
	for _, f := range []struct {
		name         string
		value, least time.Duration
	}{
		{"HandshakeTimeout", c.HandshakeTimeout, time.Millisecond},
		{"CallTimeout", c.CallTimeout, time.Millisecond},
		{"Silence", c.Silence, 100 * time.Millisecond},
		{"UnlistedIdle", c.UnlistedIdle, time.Second},
	} {
		if f.value < f.least {
			return fmt.Errorf("peer: %s must be at least %v, is %v", f.name, f.least, f.value)
		}
	}
	for _, f := range []struct {
		name         string
		value, least int
	}{
		{"MaxQueue", c.MaxQueue, MaxFrame},
		{"MaxUnauthenticated", c.MaxUnauthenticated, 1},
		{"MaxPerSource", c.MaxPerSource, 1},
		{"MaxConnections", c.MaxConnections, 1},
		{"MaxInFlight", c.MaxInFlight, 1},
		{"MaxHandlers", c.MaxHandlers, 1},
		{"MaxHandlerQueue", c.MaxHandlerQueue, 1},
	} {
		if f.value < f.least {
			return fmt.Errorf("peer: %s must be at least %d, is %d", f.name, f.least, f.value)
		}
	}
	host, _, err := net.SplitHostPort(c.Bind)
	if err != nil {
		return fmt.Errorf("peer: Bind must be host:port, is %q: %w", c.Bind, err)
	}
	if c.plain() && c.Listen == nil && !loopback(host) {
		return fmt.Errorf("peer: Bind %q is not loopback: Secrets or Certificates must be set", c.Bind)
	}
	return nil
}

// plain says that there is neither a secret nor a certificate.
func (c *Config) plain() bool { return len(c.Secrets) == 0 && c.Certificates == nil }

// loopback says whether host names this machine only.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
