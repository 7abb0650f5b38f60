package auth

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Extractor finds the key in a request. It returns "" where there is none, and an error where it can't be told
// which one is meant.
type Extractor func(*http.Request) (string, error)

// ErrAmbiguous: the request carries more than one key.
var ErrAmbiguous = errors.New("auth: more than one key in the request")

// Bearer takes the key from Authorization: Bearer KEY (RFC 6750, section 2.1; the scheme's case does not matter).
// Another scheme is no key.
func Bearer(r *http.Request) (string, error) {
	v, err := one(r.Header, "Authorization")
	if err != nil {
		return "", err
	}
	const scheme = "bearer "
	if len(v) < len(scheme) || !strings.EqualFold(v[:len(scheme)], scheme) {
		return "", nil
	}
	return strings.Trim(v[len(scheme):], " "), nil
}

// Header takes the key from a header of that name, as it is.
func Header(name string) Extractor {
	name = http.CanonicalHeaderKey(name)
	return func(r *http.Request) (string, error) { return one(r.Header, name) }
}

// QueryParam takes the key from the query string. Query strings end up in access logs, browser histories and Referer
// headers: it is not among the defaults, and meant for clients that can set no header.
func QueryParam(name string) Extractor {
	return func(r *http.Request) (string, error) {
		switch values := r.URL.Query()[name]; len(values) {
		case 0:
			return "", nil
		case 1:
			return values[0], nil
		default:
			return "", ErrAmbiguous
		}
	}
}

// AnyOf asks each extractor. The request must carry a key in one place only: taking the first of several would let
// whoever can add a header, such as a proxy, decide whose key counts.
func AnyOf(extractors ...Extractor) Extractor {
	return func(r *http.Request) (string, error) {
		found := ""
		for _, e := range extractors {
			key, err := e(r)
			if err != nil {
				return "", err
			}
			if key != "" && found != "" {
				return "", ErrAmbiguous
			}
			if key != "" {
				found = key
			}
		}
		return found, nil
	}
}

func one(h http.Header, name string) (string, error) {
	switch values := h[name]; len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	default:
		return "", ErrAmbiguous
	}
}

// RemoteClient names the client by the address of the connection, IPv6 by its /64 (which one customer commonly has
// to themselves). Behind a proxy that is the proxy: give HTTPConfig.Client a function that knows it.
func RemoteClient(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if addr = addr.Unmap().WithZone(""); addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}
