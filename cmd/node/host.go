package main

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// ownHost lets through what is addressed to this machine, as long as no token
// is configured. Without it, a page on any site could have its name point to
// 127.0.0.1 once it is open in a browser here ("DNS rebinding"), and what it
// sends would then be of the same origin. An IP address can't be pointed
// elsewhere, and browsers resolve localhost themselves (Let 'localhost' be
// localhost, draft-ietf-dnsop-let-localhost-be-localhost-02).
func (h *handler) ownHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.tokens.Load().none() && !isOwnHost(r.Host) {
			h.refused(refusedHost)
			writeProblem(w, http.StatusMisdirectedRequest,
				"without tokens this answers to an IP address or localhost only: ask for one of these, or configure tokens")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isOwnHost judges a Host header. An empty one is of no browser.
func isOwnHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	if host == "" || strings.EqualFold(host, "localhost") {
		return true
	}
	_, err = netip.ParseAddr(host)
	return err == nil
}
