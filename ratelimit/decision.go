package ratelimit

import "time"

// Decision is the answer to one check.
type Decision struct {
	// Allowed says whether the call may go ahead.
	Allowed bool
	// Limit is the policy's, as it was in force for this decision.
	Limit int64
	// Remaining is how many permits could be had now, after this decision:
	// at most the policy's burst, never negative.
	Remaining int64
	// RetryAfter is how long to wait until the same cost would be allowed if
	// nobody else spends anything. 0 when allowed. For a concurrency policy,
	// where nobody knows, it is a second at most.
	RetryAfter time.Duration
	// ResetAfter is how long until everything that was used has come back.
	ResetAfter time.Duration
	// NextAfter is how long until Remaining grows, 0 when nothing is used.
	NextAfter time.Duration
	// Policy is the name of the policy that decided.
	Policy string
	// Degraded: nobody who may decide answered, the failure mode decided.
	Degraded bool
	// Reason is empty for an ordinary decision, else one of the Reason
	// constants.
	Reason string
}

// Values of Decision.Reason.
const (
	// ReasonUnavailable: no member that may decide answered in time.
	ReasonUnavailable = "unavailable"
	// ReasonBusy: this member has too many calls under way.
	ReasonBusy = "busy"
	// ReasonUnlimited: a stored policy or an override takes the limit off.
	ReasonUnlimited = "unlimited"
	// ReasonShadow: a shadow policy would have denied the call.
	ReasonShadow = "shadow"
	// ReasonNewKeys: the source made up too many keys; they share one bucket.
	ReasonNewKeys = "new-keys"
	// ReasonUnprotected: the key's holder had other members and has none
	// left. It decides as ever, and what it knows dies with it.
	ReasonUnprotected = "unprotected"
)
