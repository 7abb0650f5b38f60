package auth

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of what a key may carry. Together they keep a cached key under 20 KiB.
const (
	MaxProject       = 128 // bytes
	MaxName          = 128 // bytes
	MaxScopes        = 64
	MaxScope         = 128 // bytes
	MaxMetadata      = 32  // entries
	MaxMetadataKey   = 64  // bytes
	MaxMetadataBytes = 4096
	MaxLimits        = 16
	MaxPolicyName    = 64  // bytes
	MaxActor         = 128 // bytes
	// MaxGrace bounds how long an old key lives on beside the one that replaced it.
	MaxGrace = 90 * 24 * time.Hour
	// MaxLifetime bounds how far ahead an expiry may be.
	MaxLifetime = 100 * 365 * 24 * time.Hour
	// MaxPage bounds a page of List.
	MaxPage = 1000
	// DefaultPage is the page of a Query without a limit.
	DefaultPage = 100
)

// check gathers what is wrong with a request.
type check struct{ fields []FieldError }

func (c *check) fail(field, format string, args ...any) {
	c.fields = append(c.fields, FieldError{field, fmt.Sprintf(format, args...)})
}

func (c *check) err() error {
	if len(c.fields) == 0 {
		return nil
	}
	return &InvalidError{c.fields}
}

// text checks a string that people read: UTF-8 without control characters, which also every store can keep.
func (c *check) text(field, s string, least, most int) {
	switch {
	case len(s) < least || len(s) > most:
		c.fail(field, "%d bytes, want %d to %d", len(s), least, most)
	case !utf8.ValidString(s):
		c.fail(field, "not UTF-8")
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		c.fail(field, "has a control character")
	}
}

func (c *check) scopes(scopes []string) {
	if len(scopes) > MaxScopes {
		c.fail("scopes", "%d, want at most %d", len(scopes), MaxScopes)
		return
	}
	seen := make(map[string]bool, len(scopes))
	for i, s := range scopes {
		field := fmt.Sprintf("scopes[%d]", i)
		switch {
		case len(s) == 0 || len(s) > MaxScope:
			c.fail(field, "%d bytes, want 1 to %d", len(s), MaxScope)
		case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }):
			// RFC 6749, section 3.3: so that it can stand in a WWW-Authenticate header as it is.
			c.fail(field, `want visible ASCII characters but " and \`)
		case seen[s]:
			c.fail(field, "is there twice")
		}
		seen[s] = true
	}
}

func (c *check) metadata(m map[string]string) {
	if len(m) > MaxMetadata {
		c.fail("metadata", "%d entries, want at most %d", len(m), MaxMetadata)
		return
	}
	size := 0
	for k, v := range m {
		size += len(k) + len(v)
		c.text("metadata", k, 1, MaxMetadataKey)
		if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
			c.fail("metadata", "value not UTF-8, or with a NUL")
		}
	}
	if size > MaxMetadataBytes {
		c.fail("metadata", "%d bytes in all, want at most %d", size, MaxMetadataBytes)
	}
}

func (c *check) limits(m map[string]Limit) {
	if len(m) > MaxLimits {
		c.fail("limits", "%d, want at most %d", len(m), MaxLimits)
		return
	}
	for name, l := range m {
		c.text("limits", name, 1, MaxPolicyName)
		if l.Limit < 1 {
			c.fail("limits."+name+".limit", "%d, want at least 1", l.Limit)
		}
		if l.Period < time.Millisecond {
			c.fail("limits."+name+".period", "%v, want at least %v", l.Period, time.Millisecond)
		}
		if l.Burst < 0 {
			c.fail("limits."+name+".burst", "%d, want at least 0 (as limit)", l.Burst)
		}
	}
}

func (c *check) expiry(at, now time.Time) {
	if at.IsZero() {
		return
	}
	if !at.After(now) || at.Sub(now) > MaxLifetime {
		c.fail("expires_at", "want after now and at most %v ahead", MaxLifetime)
	}
}

// Size is the number of keys of the page: Limit within its bounds.
func (q Query) Size() int {
	if q.Limit == 0 {
		return DefaultPage
	}
	return min(max(q.Limit, 1), MaxPage)
}

func (q Query) check() error {
	var c check
	if q.Limit < 0 || q.Limit > MaxPage {
		c.fail("limit", "%d, want 1 to %d", q.Limit, MaxPage)
	}
	c.text("project", q.Project, 0, MaxProject)
	c.text("after", q.After, 0, MaxProject)
	return c.err()
}
