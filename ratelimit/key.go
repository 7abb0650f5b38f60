package ratelimit

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// KeyFunc returns the key that a request counts under. An error refuses the
// request: there is no shared key for requests that have none. [ErrSkip] lets
// it pass this rule uncounted.
type KeyFunc = func(*http.Request) (string, error)

var (
	// ErrSkip is what a KeyFunc returns for a request that its rule is not
	// for.
	ErrSkip = errors.New("ratelimit: request is not counted by this rule")
	// ErrNoKey is wrapped by the KeyFuncs of this package where a request has
	// nothing to count it under.
	ErrNoKey = errors.New("ratelimit: request has no key")
)

// hashAbove is the length in bytes beyond which key material from outside is
// hashed: so nobody fills the memory with long keys.
const hashAbove = 64

// hashMark begins every hashed key. Material that begins with it is hashed too,
// so that nobody can choose another's.
const hashMark = "sha256:"

// Hashed returns key itself if it is short, else a hash of it: a key within
// [MaxKeyLen] for material of any length.
func Hashed(key string) string {
	if len(key) <= hashAbove && !strings.HasPrefix(key, hashMark) {
		return key
	}
	return digest(key)
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hashMark + base64.RawURLEncoding.EncodeToString(sum[:])
}

// Header counts requests under the value of a header that the client sends: its
// choice, unless something in front has checked it. Several lines of it, or
// none, are an error.
func Header(name string) KeyFunc {
	name = http.CanonicalHeaderKey(name)
	return func(r *http.Request) (string, error) {
		values := r.Header[name]
		if len(values) != 1 || values[0] == "" {
			return "", fmt.Errorf("%w: header %s", ErrNoKey, name)
		}
		return Hashed(values[0]), nil
	}
}

// Secret counts requests under a hash of what key returns, so that the secret
// itself, an API key say, is neither stored nor sent to another member.
func Secret(key KeyFunc) KeyFunc {
	return func(r *http.Request) (string, error) {
		s, err := key(r)
		if err != nil {
			return "", err
		}
		return digest(s), nil
	}
}

// Route counts requests under the pattern that matched them, with the method:
// of [http.ServeMux] or another router that sets [http.Request.Pattern], chi
// among them. It has to run behind the router; without a pattern it is an
// error, for a path alone is the client's to make up.
func Route() KeyFunc {
	return func(r *http.Request) (string, error) {
		if r.Pattern == "" {
			return "", fmt.Errorf("%w: no route has matched yet", ErrNoKey)
		}
		if strings.Contains(r.Pattern, " ") { // "GET /items/{id}"
			return Hashed(r.Pattern), nil
		}
		return Hashed(method(r.Method) + " " + r.Pattern), nil
	}
}

// method keeps made-up methods from making keys.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return m
	}
	return "other"
}

// Everyone counts all requests under one key.
func Everyone() KeyFunc {
	return func(*http.Request) (string, error) { return "everyone", nil }
}

// Join counts requests under all of the keys together, "by address and route"
// say. No two different lists of keys make the same one.
func Join(keys ...KeyFunc) KeyFunc {
	return func(r *http.Request) (string, error) {
		var b []byte
		for _, key := range keys {
			part, err := key(r)
			if err != nil {
				return "", err
			}
			b = strconv.AppendInt(b, int64(len(part)), 10)
			b = append(b, ':')
			b = append(b, part...)
		}
		if len(b) > MaxKeyLen {
			return digest(string(b)), nil
		}
		return string(b), nil
	}
}
