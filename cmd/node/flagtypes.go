package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// address is a flag's host:port, with a port from 0 to 65535, where 0 means a
// free one. An empty address means that the flag was left out.
type address string

// UnmarshalText checks the form, not whether the address exists.
func (a *address) UnmarshalText(text []byte) error {
	host, port, err := net.SplitHostPort(string(text))
	if err != nil {
		return fmt.Errorf("must be HOST:PORT, got %q", text)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("must have a port from 0 to 65535, got %q", text)
	}
	if strings.ContainsAny(host, "/ \t") {
		return fmt.Errorf("must be HOST:PORT, got %q", text)
	}
	*a = address(text)
	return nil
}

// loopback reports whether only this machine can reach the address. A name
// other than localhost is not trusted to stay what it is.
func (a address) loopback() bool {
	host, _, err := net.SplitHostPort(string(a))
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// baseURL is a flag's URL of a member's HTTP API. A bare host:port, as serve
// takes it, is understood too, so that both can read one environment variable.
type baseURL string

// UnmarshalText checks that the URL has nothing beyond scheme, host and path.
func (u *baseURL) UnmarshalText(text []byte) error {
	s := string(text)
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	parsed, err := url.Parse(s)
	switch {
	case err != nil || parsed.Host == "":
		return fmt.Errorf("must be a URL like http://127.0.0.1:8080, got %q", text)
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		return fmt.Errorf("must be an http or https URL, got %q", text)
	case parsed.RawQuery != "" || parsed.Fragment != "":
		return errors.New("must be a URL without query and fragment")
	case parsed.User != nil:
		return errors.New("must be a URL without a password: use --api-token-file")
	}
	*u = baseURL(strings.TrimSuffix(s, "/"))
	return nil
}
