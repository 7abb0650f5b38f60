package auth

import (
	"errors"
	"fmt"
	"time"
)

// Verdict is what became of a presented key.
type Verdict uint8

// The verdicts. The zero value is no verdict, so that a forgotten one accepts nobody.
const (
	// Valid: the key is known, enabled, and has not expired.
	Valid Verdict = iota + 1
	// Malformed: it can't be a key: empty, too long, or with our prefix and a wrong checksum. Nothing was looked up.
	Malformed
	// NotFound: the store does not know it.
	NotFound
	// Disabled: it was disabled.
	Disabled
	// Expired: its time is over.
	Expired
	// Unavailable: nobody who knows could be asked. It says nothing about the key, and must not let it in.
	Unavailable
)

const verdicts = int(Unavailable) + 1

var verdictNames = [verdicts]string{"", "VALID", "MALFORMED", "NOT_FOUND", "DISABLED", "EXPIRED", "UNAVAILABLE"}

// String returns the verdict's name as HTTP answers and metrics have it, such as "NOT_FOUND".
func (v Verdict) String() string {
	if int(v) >= verdicts || v == 0 {
		return fmt.Sprintf("Verdict(%d)", uint8(v))
	}
	return verdictNames[v]
}

// MarshalText returns what String returns.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Source is where a verdict came from.
type Source uint8

// The sources.
const (
	// FromKey: the key itself was enough.
	FromKey Source = iota
	// FromNear: this member's cache.
	FromNear
	// FromShared: the cache shared by the cluster.
	FromShared
	// FromStore: the store.
	FromStore
)

const sources = int(FromStore) + 1

// String returns "key", "near", "shared" or "store".
func (s Source) String() string {
	return [...]string{"key", "near", "shared", "store"}[min(int(s), sources-1)]
}

// MarshalText returns what String returns.
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Result is the answer to one presented key.
type Result struct {
	Verdict Verdict
	Source  Source
	// Cached: the store was not asked for this answer.
	Cached bool
	// Stale: the positive is older than Config.PositiveTTL and stands only because the store is down.
	Stale bool
	// Principal is who the key stands for; nil unless the verdict is Valid. It is shared by all who present the
	// key: it must not be changed.
	Principal *Principal
}

// Errors to act on.
var (
	// ErrNotFound: no key has this ID or digest.
	ErrNotFound = errors.New("auth: no such key")
	// ErrExists: a key with this ID or digest is there already.
	ErrExists = errors.New("auth: key exists already")
	// ErrUnavailable: neither the store nor a confirmed cache could answer. What it wraps says why.
	ErrUnavailable = errors.New("auth: unavailable")
	// ErrNotAnnounced: the change is in the store, but the cluster's record of changes could not be reached. Members
	// that were not told learn it from the store, and meanwhile use nothing cached that they could not confirm.
	ErrNotAnnounced = errors.New("auth: stored, but not announced to the cluster")
	// ErrClosed: the Authenticator was closed.
	ErrClosed = errors.New("auth: closed")
	// ErrNoPrincipal: the request did not pass an Authenticator's handler.
	ErrNoPrincipal = errors.New("auth: no principal in the context")
)

// ThrottledError is the error of a verification that was refused by Config.FailureLimit before anything was looked
// up; the verdict is Unavailable.
type ThrottledError struct {
	RetryAfter time.Duration
}

// Error says how long to wait.
func (e *ThrottledError) Error() string {
	return fmt.Sprintf("auth: too many failed attempts, retry after %v", e.RetryAfter)
}
