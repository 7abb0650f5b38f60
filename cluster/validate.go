package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/membership"
)

const (
	maxName    = 64
	maxSecrets = 16
	maxMembers = 10_000
)

// withDefaults fills in what is left out.
func (c Config) withDefaults() Config {
	c.ClusterName = or(c.ClusterName, DefaultClusterName)
	c.Bind = or(c.Bind, DefaultBind)
	c.PeerBind = or(c.PeerBind, nextPort(c.Bind, 1))
	c.KVBind = or(c.KVBind, nextPort(c.Bind, 2))
	if c.NodeID == "" {
		c.NodeID = hostID(c.Bind)
	}
	c.Version = or(c.Version, moduleVersion())
	c.MinMembers = or(c.MinMembers, 1)
	c.JoinTimeout = or(c.JoinTimeout, DefaultJoinTimeout)
	c.DrainTimeout = or(c.DrainTimeout, DefaultDrainTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(c.Secret) > 0 && len(c.Secrets) == 0 {
		c.Secrets = [][]byte{c.Secret}
	}
	// The caller may reuse its slices.
	c.Join = slices.Clone(c.Join)
	c.Secrets = slices.Clone(c.Secrets)
	for i, s := range c.Secrets {
		c.Secrets[i] = slices.Clone(s)
	}
	d := DefaultTimings()
	c.Timings = Timings{
		Grant:     or(c.Timings.Grant, d.Grant),
		Beat:      or(c.Timings.Beat, d.Beat),
		Suspect:   or(c.Timings.Suspect, d.Suspect),
		Gap:       or(c.Timings.Gap, d.Gap),
		CopyEvery: or(c.Timings.CopyEvery, d.CopyEvery),
		Call:      or(c.Timings.Call, d.Call),
	}
	return c
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// nextPort returns the host of bind with its port plus n, or 0 if that is 0.
// What it can't read it gives back, for validate to complain of.
func nextPort(bind string, n int) string {
	host, port, err := net.SplitHostPort(bind)
	if err != nil {
		return bind
	}
	p, err := strconv.Atoi(port)
	if err != nil {
		return bind
	}
	if p != 0 {
		p += n
	}
	return net.JoinHostPort(host, strconv.Itoa(p))
}

// hostID makes a node ID of the host's name.
func hostID(bind string) string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "node"
	}
	id := strings.Map(func(r rune) rune {
		if nameRune(r) {
			return r
		}
		return '-'
	}, host)
	_, port, _ := net.SplitHostPort(bind)
	switch port {
	case strconv.Itoa(DefaultPort), "":
		port = ""
	case "0":
		port = fmt.Sprintf("-%04x", membership.NewBoot()&0xffff)
	default:
		port = "-" + port
	}
	return id[:min(len(id), maxName-len(port))] + port
}

// moduleVersion returns the version of this module in the running program.
func moduleVersion() string {
	const module = "github.com/peerlimit/peerlimit"
	version := "devel"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path == module && m.Version != "" && m.Version != "(devel)" {
				version = m.Version
			}
		}
	}
	return version[:min(len(version), membership.MaxVersion)]
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
}

// validate returns a *ConfigError if a field of c, which has its defaults, is
// out of bounds.
func (c Config) validate() error {
	for _, f := range []struct{ field, value string }{{"ClusterName", c.ClusterName}, {"NodeID", c.NodeID}} {
		if len(f.value) > maxName || strings.ContainsFunc(f.value, func(r rune) bool { return !nameRune(r) }) {
			return wrong(f.field, "%q must be 1 to %d of A-Z, a-z, 0-9, dot, underscore and hyphen", f.value, maxName)
		}
	}
	for _, f := range []struct {
		field, value string
		most         int
	}{{"Zone", c.Zone, membership.MaxZone}, {"Version", c.Version, membership.MaxVersion}} {
		if len(f.value) > f.most || strings.ContainsFunc(f.value, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return wrong(f.field, "%q must be at most %d printable ASCII characters without spaces", f.value, f.most)
		}
	}
	if err := c.validateAddresses(); err != nil {
		return err
	}
	if c.MinMembers < 1 || c.MinMembers > maxMembers {
		return wrong("MinMembers", "%d is not between 1 and %d", c.MinMembers, maxMembers)
	}
	if err := within("JoinTimeout", c.JoinTimeout, 100*time.Millisecond, 10*time.Minute); err != nil {
		return err
	}
	if err := within("DrainTimeout", c.DrainTimeout, time.Millisecond, time.Hour); err != nil {
		return err
	}
	if err := c.validateSecrets(); err != nil {
		return err
	}
	return c.Timings.validate()
}

func wrong(field, format string, args ...any) error {
	return &ConfigError{Field: field, Detail: fmt.Sprintf(format, args...)}
}

func within(field string, d, low, high time.Duration) error {
	if d < low || d > high {
		return wrong(field, "%s is not between %s and %s", d, low, high)
	}
	return nil
}

func (c Config) validateAddresses() error {
	ports := make(map[string]string)
	for _, f := range []struct{ field, value string }{{"Bind", c.Bind}, {"PeerBind", c.PeerBind}, {"KVBind", c.KVBind}} {
		host, port, err := net.SplitHostPort(f.value)
		if err != nil {
			return &ConfigError{f.field, fmt.Sprintf("%q is not host:port", f.value), err}
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return wrong(f.field, "%q: port %q is not between 0 and 65535", f.value, port)
		}
		if other, taken := ports[f.value]; taken && n != 0 {
			return wrong(f.field, "%q is the address of %s too", f.value, other)
		}
		ports[f.value] = f.field
		if len(c.Secrets) == 0 && !loopback(host) {
			return wrong(f.field, "%q is not loopback, so Secret must be set: 32 random bytes, the same on all members", f.value)
		}
	}
	if len(c.Advertise) > 0 {
		if _, _, err := net.SplitHostPort(c.Advertise); err == nil {
			return wrong("Advertise", "%q must be a host without a port", c.Advertise)
		}
		if err := membership.CheckSeed(strings.Trim(c.Advertise, "[]")); err != nil {
			return &ConfigError{"Advertise", "must be an address or a DNS name", err}
		}
	}
	for _, s := range c.Join {
		if err := membership.CheckSeed(s); err != nil {
			return &ConfigError{Field: "Join", Detail: err.Error()}
		}
	}
	return nil
}

// loopback tells whether a host is reached from this machine only. A name other
// than localhost may change what it means, so it counts as outside.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

func (c Config) validateSecrets() error {
	if len(c.Secret) > 0 && (len(c.Secrets) != 1 || string(c.Secrets[0]) != string(c.Secret)) {
		return wrong("Secrets", "only one of Secret and Secrets may be set")
	}
	if len(c.Secrets) > maxSecrets {
		return wrong("Secrets", "%d of them, at most %d", len(c.Secrets), maxSecrets)
	}
	for i, s := range c.Secrets {
		if len(s) == 0 {
			return wrong("Secrets", "number %d is empty", i+1)
		}
	}
	files := 0
	for _, f := range []string{c.TLSCert, c.TLSKey, c.TLSCA} {
		if f != "" {
			files++
		}
	}
	switch {
	case files != 0 && files != 3:
		return wrong("TLSCert", "TLSCert, TLSKey and TLSCA must be set all three, or none")
	case files != 0 && c.TLS != nil:
		return wrong("TLS", "only one of TLS and the files TLSCert, TLSKey, TLSCA may be set")
	case c.TLS != nil && c.TLS.RootCAs == nil && c.TLS.ClientCAs == nil:
		return wrong("TLS", "RootCAs or ClientCAs must be set: without them any certificate would do")
	case c.TLS != nil && len(c.TLS.Certificates) == 0 && c.TLS.GetCertificate == nil:
		return wrong("TLS", "Certificates or GetCertificate must be set")
	}
	return nil
}

// certificates returns the TLS configuration between peers, nil if there is
// none but what the secret gives.
func (c Config) certificates() (*tls.Config, error) {
	if c.TLS != nil {
		return c.TLS.Clone(), nil
	}
	if c.TLSCert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, &ConfigError{"TLSCert", "can't be loaded with TLSKey", err}
	}
	pem, err := os.ReadFile(c.TLSCA)
	if err != nil {
		return nil, &ConfigError{"TLSCA", "can't be read", err}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, wrong("TLSCA", "%s holds no certificate in PEM format", c.TLSCA)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool, MinVersion: tls.VersionTLS13}, nil
}

func (t Timings) validate() error {
	const ms = time.Millisecond
	if err := within("Timings.Grant", t.Grant, 20*ms, time.Minute); err != nil {
		return err
	}
	if err := within("Timings.Beat", t.Beat, ms, t.Grant/3); err != nil {
		return err
	}
	for _, f := range []struct {
		name          string
		d, above, max time.Duration
	}{
		{"Timings.Suspect", t.Suspect, t.Beat, t.Grant},
		{"Timings.Gap", t.Gap, 0, t.Grant},
		{"Timings.CopyEvery", t.CopyEvery, 0, t.Grant},
	} {
		if f.d <= f.above || f.d >= f.max {
			return wrong(f.name, "%s must be above %s and below %s", f.d, f.above, f.max)
		}
	}
	if t.Call <= t.Grant || t.Call > time.Minute {
		return wrong("Timings.Call", "%s must be above Grant (%s) and at most %s", t.Call, t.Grant, time.Minute)
	}
	return nil
}
