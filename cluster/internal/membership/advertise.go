package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Advertise returns the address under which other members reach this one:
// advertise, an address or a name, if it is given; else the host of bind if
// that is one address; else the first private or else the first public address
// of this host, IPv4 before IPv6.
func Advertise(ctx context.Context, r Resolver, bind, advertise string) (netip.Addr, error) {
	if advertise != "" {
		return oneAddress(ctx, r, strings.Trim(advertise, "[]"))
	}
	host, _, err := net.SplitHostPort(bind)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not host:port: %w", bind, err)
	}
	if host != "" {
		addr, err := oneAddress(ctx, r, host)
		if err == nil || !errors.Is(err, errUnspecified) {
			return addr, err
		}
	}
	return choose(localAddresses())
}

var errUnspecified = errors.New("not the address of one host")

func oneAddress(ctx context.Context, r Resolver, host string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		all, err := r.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return netip.Addr{}, err
		}
		if len(all) == 0 {
			return netip.Addr{}, fmt.Errorf("%q has no address", host)
		}
		addr = all[0]
		for _, a := range all {
			if a.Unmap().Is4() {
				addr = a
				break
			}
		}
	}
	addr = addr.Unmap()
	if addr.IsUnspecified() || addr.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("%s: %w", addr, errUnspecified)
	}
	return addr.WithZone(""), nil
}

// choose picks the address that other hosts most likely reach.
func choose(addrs []netip.Addr) (netip.Addr, error) {
	for _, fits := range []func(netip.Addr) bool{
		func(a netip.Addr) bool { return a.Is4() && a.IsPrivate() },
		func(a netip.Addr) bool { return a.Is4() && a.IsGlobalUnicast() },
		func(a netip.Addr) bool { return a.IsPrivate() },
		func(a netip.Addr) bool { return a.IsGlobalUnicast() },
	} {
		for _, a := range addrs {
			if fits(a) {
				return a, nil
			}
		}
	}
	return netip.Addr{}, errors.New("this host has no address but loopback, so the one to advertise must be given")
}
