package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Check is the body of one check. Zero values are left out.
type Check struct {
	Key         string `json:"key"`
	Limit       int64  `json:"limit"`
	Period      string `json:"period"`
	Burst       int64  `json:"burst,omitempty"`
	Cost        int64  `json:"cost,omitempty"`
	Algorithm   string `json:"algorithm,omitempty"`
	Policy      string `json:"policy,omitempty"`
	Synchronous bool   `json:"synchronous,omitempty"`
}

// Body is c as JSON.
func (c Check) Body() []byte { return mustJSON(c) }

func mustJSON(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return body
}

// Decision is the answer to a check.
type Decision struct {
	Allowed      bool   `json:"allowed"`
	Limit        int64  `json:"limit"`
	Remaining    int64  `json:"remaining"`
	RetryAfterMS int64  `json:"retry_after_ms"`
	ResetAfterMS int64  `json:"reset_after_ms"`
	Policy       string `json:"policy"`
	Degraded     bool   `json:"degraded"`
	Reason       string `json:"reason"`
}

// Decisions is the answer to several checks at once.
type Decisions struct {
	Allowed   bool       `json:"allowed"`
	Decisions []Decision `json:"decisions"`
}

// Problem is an error's answer.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Errors []struct {
		Field  string `json:"field"`
		Detail string `json:"detail"`
	} `json:"errors"`
}

// ClusterView is a member's view of its cluster.
type ClusterView struct {
	Name    string `json:"name"`
	Self    string `json:"self"`
	Members []struct {
		Name       string `json:"name"`
		State      string `json:"state"`
		OwnedSlots int    `json:"owned_slots"`
	} `json:"members"`
	Ring struct {
		Version string `json:"version"`
		Slots   int    `json:"slots"`
	} `json:"ring"`
	Breakers   map[string]string `json:"breakers"`
	Possession struct {
		Slots       int    `json:"slots"`
		Unprotected int    `json:"unprotected"`
		TakeOvers   uint64 `json:"takeovers"`
	} `json:"possession"`
	KV struct {
		State   string `json:"state"`
		Breaker string `json:"breaker"`
	} `json:"kv"`
	FramesRejected map[string]uint64 `json:"frames_rejected"`
}

// Ask sends a request and decodes a 2xx answer, or a 429, into answer.
func (m *Member) Ask(ctx context.Context, method, path string, body []byte, answer any) (status int, err error) {
	status, _, text, err := m.Request(ctx, method, path, body)
	if err != nil {
		return 0, err
	}
	if status/100 != 2 && status != http.StatusTooManyRequests {
		return status, fmt.Errorf("%s: %s %s: %d %s", m.Name, method, path, status, strings.TrimSpace(string(text)))
	}
	if answer == nil {
		return status, nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return status, fmt.Errorf("%s: %s %s: %w in %.200q", m.Name, method, path, err, text)
	}
	return status, nil
}

// Check asks for one decision.
func (m *Member) Check(ctx context.Context, body []byte) (d Decision, err error) {
	_, err = m.Ask(ctx, http.MethodPost, "/v1/ratelimit/check", body, &d)
	return d, err
}

// CheckAll asks for one decision on several checks: it is degraded where one of
// them is.
func (m *Member) CheckAll(ctx context.Context, body []byte) (d Decision, err error) {
	var all Decisions
	_, err = m.Ask(ctx, http.MethodPost, "/v1/ratelimit/check", body, &all)
	d.Allowed = all.Allowed
	for _, one := range all.Decisions {
		d.Degraded = d.Degraded || one.Degraded
	}
	return d, err
}

// Peek asks what a check would be answered, without spending.
func (m *Member) Peek(ctx context.Context, body []byte) (d Decision, err error) {
	_, err = m.Ask(ctx, http.MethodPost, "/v1/ratelimit/status", body, &d)
	return d, err
}

// Keys is how many keys the cluster holds.
func (m *Member) Keys(ctx context.Context) (int, error) {
	var size struct {
		Keys int `json:"keys"`
	}
	_, err := m.Ask(ctx, http.MethodGet, "/v1/ratelimit", nil, &size)
	return size.Keys, err
}

// View asks for the member's view of its cluster.
func (m *Member) View(ctx context.Context) (v ClusterView, err error) {
	_, err = m.Ask(ctx, http.MethodGet, "/v1/cluster", nil, &v)
	return v, err
}

// short returns a context for one request of a test.
func short() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 10*time.Second)
}
