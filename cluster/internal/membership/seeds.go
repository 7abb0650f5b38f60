package membership

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Resolver finds the addresses of a DNS name. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

var defaultResolver Resolver = net.DefaultResolver

// A seed is where other members may be found: an address, or a name that may
// have many.
type seed struct {
	text string
	host string
	port uint16
	addr netip.Addr // valid if host is a literal address
}

// parseSeed reads host, host:port, an IPv6 address or [IPv6]:port.
func parseSeed(text string, defaultPort uint16) (seed, error) {
	host, port := text, strconv.Itoa(int(defaultPort))
	if h, p, err := net.SplitHostPort(text); err == nil {
		host, port = h, p
	} else if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		host = text[1 : len(text)-1]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return seed{}, fmt.Errorf("%q: port %q is not between 1 and 65535", text, port)
	}
	s := seed{text: text, host: host, port: uint16(n)}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.IsUnspecified() || addr.IsMulticast() {
			return seed{}, fmt.Errorf("%q: %s is not the address of one host", text, addr)
		}
		s.addr = addr.Unmap().WithZone("")
		return s, nil
	}
	if host == "" || len(host) > 253 || strings.ContainsAny(host, ":[]/@ \t\r\n%") {
		return seed{}, fmt.Errorf("%q is not host:port, a DNS name or an address", text)
	}
	return s, nil
}

// CheckSeed returns an error if text is not host, host:port or an address.
func CheckSeed(text string) error {
	_, err := parseSeed(text, 1)
	return err
}

const (
	resolveTimeout = 2 * time.Second
	maxAddresses   = 1024 // of one name
)

// seedList resolves and remembers: while a name can't be resolved, the
// addresses it had stay good. Only one goroutine may use it.
type seedList struct {
	all      []seed
	resolver Resolver
	last     map[string][]netip.Addr // by host
}

// resolve returns the addresses of all seeds, without duplicates, and the names
// that could not be resolved.
func (s *seedList) resolve(ctx context.Context) (addrs []netip.AddrPort, failed []error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	type answer struct {
		addrs []netip.Addr
		err   error
	}
	answers := make(map[string]*answer)
	var wg sync.WaitGroup
	for _, sd := range s.all {
		if sd.addr.IsValid() || answers[sd.host] != nil {
			continue
		}
		a := new(answer)
		answers[sd.host] = a
		wg.Go(func() { a.addrs, a.err = s.resolver.LookupNetIP(ctx, "ip", sd.host) })
	}
	wg.Wait()
	if s.last == nil {
		s.last = make(map[string][]netip.Addr)
	}
	for host, a := range answers {
		if a.err != nil {
			failed = append(failed, a.err)
			continue
		}
		s.last[host] = a.addrs[:min(len(a.addrs), maxAddresses)]
	}
	seen := make(map[netip.AddrPort]bool)
	add := func(addr netip.Addr, port uint16) {
		ap := netip.AddrPortFrom(addr.Unmap().WithZone(""), port)
		if !seen[ap] {
			seen[ap] = true
			addrs = append(addrs, ap)
		}
	}
	for _, sd := range s.all {
		if sd.addr.IsValid() {
			add(sd.addr, sd.port)
			continue
		}
		for _, a := range s.last[sd.host] {
			add(a, sd.port)
		}
	}
	return addrs, failed
}

// ownAddresses tells which addresses are this member itself.
type ownAddresses struct {
	advertise netip.AddrPort
	bound     netip.AddrPort
	local     func() []netip.Addr // of this host
}

func (o ownAddresses) filter() func(netip.AddrPort) bool {
	local := make(map[netip.Addr]bool)
	if o.bound.Addr().IsUnspecified() {
		for _, a := range o.local() {
			local[a] = true
		}
	}
	return func(a netip.AddrPort) bool {
		if a == o.advertise || a == o.bound {
			return true
		}
		return a.Port() == o.bound.Port() && local[a.Addr()]
	}
}

// localAddresses returns the addresses of this host's interfaces.
func localAddresses() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	out := make([]netip.Addr, 0, len(all))
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, addr.Unmap())
			}
		}
	}
	return out
}
