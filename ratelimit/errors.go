package ratelimit

import (
	"errors"
	"fmt"
	"time"
)

// ErrClosed is returned by a limiter that was closed.
var ErrClosed = errors.New("ratelimit: limiter is closed")

// FieldError is bad input: a policy, a key or a cost out of bounds. Nothing was
// spent. Field is the name the field has in JSON and YAML.
type FieldError struct {
	Field  string // "key", "limit", "period", "burst", "cost", "algorithm", "policy", …
	Detail string // what is allowed, and what was given
}

func (e *FieldError) Error() string { return "ratelimit: " + e.Field + ": " + e.Detail }

func badField(field, format string, args ...any) error {
	return &FieldError{Field: field, Detail: fmt.Sprintf(format, args...)}
}

// ExceededError is what [Limiter.Limit] returns for a denied call.
type ExceededError struct{ Decision Decision }

func (e *ExceededError) Error() string {
	d := &e.Decision
	if d.Degraded {
		return fmt.Sprintf("ratelimit: policy %s: denied while degraded: %s", d.Policy, d.Reason)
	}
	return fmt.Sprintf("ratelimit: policy %s: limit of %d exceeded, retry after %s",
		d.Policy, d.Limit, d.RetryAfter.Round(time.Millisecond))
}
