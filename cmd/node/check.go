package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// checkCommand asks a running member for one decision.
type checkCommand struct {
	Key string `arg:"" help:"What is limited: a user, an address, a tenant."`

	Limit     int64         `required:"" placeholder:"N" help:"Permits a period, from 1 to 9007199254740992."`
	Period    time.Duration `required:"" placeholder:"D" help:"The period, as in 60s, 1h or 24h."`
	Burst     *int64        `placeholder:"N" help:"Permits that may be spent at once; the limit unless given."`
	Cost      int64         `default:"1" placeholder:"N" help:"Permits that this call costs, from 1 to the limit."`
	Algorithm string        `placeholder:"A" help:"token-bucket (the default), sliding-window or fixed-window."`
	Policy    string        `default:"default" placeholder:"NAME" help:"Name of the policy: state belongs to policy and key."`
	JSON      bool          `name:"json" help:"Print the answer as JSON."`
	clientFlags
}

// decision is the answer of the HTTP API to a check.
type decision struct {
	Allowed      bool   `json:"allowed"`
	Limit        int64  `json:"limit"`
	Remaining    int64  `json:"remaining"`
	RetryAfterMS int64  `json:"retry_after_ms"`
	ResetAfterMS int64  `json:"reset_after_ms"`
	Policy       string `json:"policy"`
	Degraded     bool   `json:"degraded"`
	Reason       string `json:"reason"`
}

// checkFlags maps the fields of a check to the flags that fill them.
var checkFlags = map[string]string{
	"key": "KEY", "limit": "--limit", "period": "--period", "burst": "--burst",
	"cost": "--cost", "algorithm": "--algorithm", "policy": "--policy",
}

// Run asks, prints, and makes the exit code tell the decision. The bounds are
// the member's to know; its refusals come back named after the flags.
func (c *checkCommand) Run(ctx context.Context, env *environment) error {
	member, err := c.connect()
	if err != nil {
		return err
	}
	body, err := json.Marshal(struct {
		Key       string `json:"key"`
		Limit     int64  `json:"limit"`
		Period    string `json:"period"`
		Burst     *int64 `json:"burst,omitempty"`
		Cost      int64  `json:"cost"`
		Algorithm string `json:"algorithm,omitempty"`
		Policy    string `json:"policy"`
	}{c.Key, c.Limit, c.Period.String(), c.Burst, c.Cost, c.Algorithm, c.Policy})
	if err != nil {
		return err
	}
	answer, _, err := member.do(ctx, http.MethodPost, "/v1/ratelimit/check", body,
		http.StatusOK, http.StatusTooManyRequests)
	if err != nil {
		return usageOf(err, checkFlags)
	}
	var d decision
	if err := json.Unmarshal(answer, &d); err != nil {
		return fmt.Errorf("%s: the answer is not a decision: %w", c.HTTP, err)
	}
	if c.JSON {
		fmt.Fprintf(env.stdout, "%s\n", trimSpace(answer))
	} else {
		fmt.Fprintln(env.stdout, d.String())
	}
	if !d.Allowed {
		return errDenied
	}
	return nil
}

// String says a decision in one line.
func (d decision) String() string {
	verdict := "denied"
	if d.Allowed {
		verdict = "allowed"
	}
	text := fmt.Sprintf("%s: %d of %d remaining", verdict, d.Remaining, d.Limit)
	if d.RetryAfterMS > 0 {
		text += fmt.Sprintf(", retry after %s", milliseconds(d.RetryAfterMS))
	}
	if d.ResetAfterMS > 0 {
		text += fmt.Sprintf(", full again after %s", milliseconds(d.ResetAfterMS))
	}
	if d.Degraded {
		text += ", degraded"
	}
	if d.Reason != "" {
		text += ": " + d.Reason
	}
	return text
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
