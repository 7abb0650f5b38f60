package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// access is what a route asks of its caller.
type access int

const (
	forAnyone  access = iota // probes: no token, ever
	forReaders               // as forUsers, also as the password of HTTP Basic: for a browser, which can't send Bearer
	forUsers                 // an API token or an admin token
	forAdmins                // an admin token
)

// tokens decides who may call a route. Where none is configured everybody may,
// which serve allows on loopback only; where only API tokens are, nobody may
// administer.
type tokens struct {
	users, admins []hashedToken
}

// none reports whether no token is configured.
func (t *tokens) none() bool { return len(t.users)+len(t.admins) == 0 }

// hashedToken is what is kept of a token. Hashes have one length, so that a
// comparison in constant time tells nothing about a token's length either.
type hashedToken [sha256.Size]byte

func hashTokens(plain []string) (hashed []hashedToken) {
	for _, token := range plain {
		hashed = append(hashed, sha256.Sum256([]byte(token)))
	}
	return hashed
}

// refuses returns the status and the reason to refuse a request with, or 0.
func (t *tokens) refuses(need access, r *http.Request) (status int, detail string) {
	if need == forAnyone || t.none() {
		return 0, ""
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	_, password, basic := r.BasicAuth()
	switch {
	case need == forReaders && basic:
		token = password // the name is of no matter
	case !strings.EqualFold(scheme, "Bearer"), token == "":
		return http.StatusUnauthorized, "this needs the header Authorization: Bearer <token>"
	}
	presented := hashedToken(sha256.Sum256([]byte(strings.TrimSpace(token))))
	admin := holds(t.admins, &presented)
	user := holds(t.users, &presented)
	switch {
	case admin, user && need != forAdmins:
		return 0, ""
	case user:
		return http.StatusForbidden, "this needs an admin token"
	case need == forReaders && basic:
		return http.StatusUnauthorized, "the password is not one of this member's tokens" // so that a browser asks again
	}
	return http.StatusForbidden, "the token is not one of this member's"
}

// holds compares with every token, so that its time says nothing about which
// one was near.
func holds(known []hashedToken, presented *hashedToken) bool {
	found := 0
	for i := range known {
		found |= subtle.ConstantTimeCompare(known[i][:], presented[:])
	}
	return found == 1
}
