package ratelimit

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/realclientip/realclientip-go"
)

// Trusted says which proxies in front of a service are believed when they say
// whom they forward for. The zero value believes nobody: the client is the other
// end of the connection.
type Trusted struct {
	// Header is what the proxies write: "X-Forwarded-For", "Forwarded" (RFC
	// 7239), or a header of one address such as "CF-Connecting-IP", which the
	// proxy has to overwrite. Empty: no header is read.
	Header string
	// Proxies are the proxies' addresses. The header is read only of
	// connections that come from one of them, from right to left: the client
	// is the first address that is not a proxy's.
	Proxies []netip.Prefix
	// Hops, in place of Proxies, is how many proxies there are, 1 to 16, where
	// their addresses are not known and nobody else can connect. The client is
	// the Hops-th address from the right.
	Hops int
	// IPv6Bits is the length of the prefix that IPv6 clients are told apart
	// by, 1 to 128. 0: 64, what one customer usually has.
	IPv6Bits int
}

// MaxHops bounds Trusted.Hops.
const MaxHops = 16

// Validate returns a [*FieldError] for the first field that is out of bounds.
func (t Trusted) Validate() error {
	switch {
	case t.Header == "" && (len(t.Proxies) > 0 || t.Hops != 0):
		return badField("trusted.header", "must name the header that the proxies write")
	case t.Header != "" && strings.Trim(t.Header, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "":
		return badField("trusted.header", "must be the name of a header, is %.80q", t.Header)
	case t.Header != "" && len(t.Proxies) == 0 && t.Hops == 0:
		return badField("trusted.proxies", "must not be empty where a header is read, or hops be set")
	case len(t.Proxies) > 0 && t.Hops != 0:
		return badField("trusted.hops", "must be 0 where proxies are given, is %d", t.Hops)
	case t.Hops < 0 || t.Hops > MaxHops:
		return badField("trusted.hops", "must be 0 to %d, is %d", MaxHops, t.Hops)
	case t.Hops > 1 && !t.list():
		return badField("trusted.hops", "must be 1 with a header of one address, is %d", t.Hops)
	case t.IPv6Bits < 0 || t.IPv6Bits > 128:
		return badField("trusted.ipv6_bits", "must be 0 (64) to 128, is %d", t.IPv6Bits)
	}
	for _, p := range t.Proxies {
		if !p.IsValid() {
			return badField("trusted.proxies", "has an invalid prefix")
		}
	}
	return nil
}

// list tells whether the header is a list of addresses.
func (t *Trusted) list() bool {
	return strings.EqualFold(t.Header, "X-Forwarded-For") || strings.EqualFold(t.Header, "Forwarded")
}

// ClientIP counts requests under the client's address: IPv4 whole, with
// IPv4-mapped IPv6 as IPv4, IPv6 by its prefix, without zones. No address is an
// error, and not a key that all such requests share. It panics if trusted is not
// valid.
func ClientIP(trusted Trusted) KeyFunc {
	find := newFinder(trusted)
	return func(r *http.Request) (string, error) {
		if find.header == "" {
			if host := hostIPv4(r.RemoteAddr); host != "" {
				return host, nil
			}
		}
		addr, err := find.addr(r)
		if err != nil {
			return "", err
		}
		return addrKey(addr, find.ipv6Bits), nil
	}
}

// ClientAddr returns the address that [ClientIP] makes its key of.
func ClientAddr(trusted Trusted) func(*http.Request) (netip.Addr, error) {
	return newFinder(trusted).addr
}

func addrKey(addr netip.Addr, ipv6Bits int) string {
	var buf [48]byte
	if addr.Is4() {
		return string(addr.AppendTo(buf[:0]))
	}
	p, err := addr.Prefix(ipv6Bits)
	if err != nil {
		return addr.String() // no address has fewer bits than Validate allows
	}
	return string(p.AppendTo(buf[:0]))
}

// finder is a Trusted made ready.
type finder struct {
	header    string // canonical; empty: none is read
	forwarded bool
	proxies   []netip.Prefix
	strategy  realclientip.Strategy
	nearest   realclientip.Strategy // what the connection's other end wrote
	ipv6Bits  int
}

func newFinder(t Trusted) *finder {
	if err := t.Validate(); err != nil {
		panic(err)
	}
	f := &finder{header: http.CanonicalHeaderKey(t.Header), ipv6Bits: t.IPv6Bits}
	if f.ipv6Bits == 0 {
		f.ipv6Bits = 64
	}
	if f.header == "" {
		return f
	}
	for _, p := range t.Proxies {
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		f.proxies = append(f.proxies, p.Masked())
	}
	const list = "X-Forwarded-For"
	f.forwarded = f.header == "Forwarded"
	switch {
	case !t.list():
		f.strategy = realclientip.Must(realclientip.NewSingleIPHeaderStrategy(f.header))
	case t.Hops > 0:
		f.strategy = realclientip.Must(realclientip.NewRightmostTrustedCountStrategy(list, t.Hops))
	default:
		f.strategy = realclientip.Must(realclientip.NewRightmostTrustedRangeStrategy(list, netsOf(f.proxies)))
		f.nearest = realclientip.Must(realclientip.NewRightmostTrustedCountStrategy(list, 1))
	}
	return f
}

func netsOf(prefixes []netip.Prefix) []net.IPNet {
	nets := make([]net.IPNet, len(prefixes))
	for i, p := range prefixes {
		nets[i] = net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	}
	return nets
}

// addr returns the client's address.
func (f *finder) addr(r *http.Request) (netip.Addr, error) {
	remote, remoteErr := remoteAddr(r.RemoteAddr)
	if f.header == "" {
		return remote, remoteErr
	}
	if f.proxies != nil && (remoteErr != nil || !f.isProxy(remote)) {
		// Not from a proxy, so the header is the client's own.
		return remote, remoteErr
	}
	values := r.Header[f.header]
	if len(values) == 0 {
		if f.proxies == nil {
			return netip.Addr{}, fmt.Errorf("%w: header %s", ErrNoKey, f.header)
		}
		return remote, nil // the proxy's own request
	}
	headers := r.Header
	if f.forwarded {
		list, ok := forwardedFor(values)
		if !ok {
			return netip.Addr{}, fmt.Errorf("%w: header Forwarded is malformed", ErrNoKey)
		}
		headers = http.Header{"X-Forwarded-For": list}
	}
	found := f.strategy.ClientIP(headers, r.RemoteAddr)
	if found == "" && f.nearest != nil {
		// Either the list ends in something that is no address, or all of it
		// are proxies: then the last of them asks for itself. It is the one
		// that our neighbour vouches for; what stands before it anybody may
		// have written.
		last := f.nearest.ClientIP(headers, r.RemoteAddr)
		if a, err := parseAddr(last); err == nil && f.isProxy(a) && f.allProxies(headers) {
			found = last
		}
	}
	addr, err := parseAddr(found)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: header %s names no client", ErrNoKey, f.header)
	}
	return addr, nil
}

// allProxies tells whether every address of the list is a proxy's.
func (f *finder) allProxies(headers http.Header) bool {
	for _, line := range headers["X-Forwarded-For"] {
		for item := range strings.SplitSeq(line, ",") {
			a, err := realclientip.ParseIPAddr(strings.TrimSpace(item))
			if err != nil {
				return false
			}
			addr, ok := netip.AddrFromSlice(a.IP)
			if !ok || !f.isProxy(addr.Unmap()) {
				return false
			}
		}
	}
	return true
}

func (f *finder) isProxy(addr netip.Addr) bool {
	for _, p := range f.proxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// hostIPv4 returns the address of an IPv4 "address:port" as it stands there: an
// IPv4 address can be written in one way only, so that is its key. Of all else,
// and of 0.0.0.0, it returns nothing, and leaves it to remoteAddr, which takes
// four times as long.
func hostIPv4(s string) string {
	if len(s) > len("255.255.255.255:65535") {
		return ""
	}
	part, digits, parts := 0, 0, 0
	unspecified := true
	for i := range len(s) {
		c := s[i]
		switch {
		case c-'0' <= 9:
			if digits > 0 && part == 0 {
				return "" // a leading zero
			}
			part = 10*part + int(c-'0')
			digits++
		case digits == 0 || part > 255:
			return ""
		case c == '.' && parts < 3, c == ':' && parts == 3:
			unspecified = unspecified && part == 0
			if c == ':' {
				if unspecified || !isPort(s[i+1:]) {
					return ""
				}
				return s[:i]
			}
			part, digits = 0, 0
			parts++
		default:
			return ""
		}
	}
	return ""
}

// isPort reports whether s is a port's number.
func isPort(s string) bool {
	n := 0
	for i := range len(s) {
		if s[i]-'0' > 9 {
			return false
		}
		n = 10*n + int(s[i]-'0')
	}
	return len(s) > 0 && n <= 65535
}

// remoteAddr reads the address of a connection's other end.
func remoteAddr(s string) (netip.Addr, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return plain(ap.Addr())
	}
	return parseAddr(s)
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: no client address", ErrNoKey)
	}
	return plain(a)
}

// plain takes off zones and the IPv6 form of IPv4 addresses.
func plain(a netip.Addr) (netip.Addr, error) {
	a = a.WithZone("").Unmap()
	if a.IsUnspecified() {
		return netip.Addr{}, fmt.Errorf("%w: no client address", ErrNoKey)
	}
	return a, nil
}
