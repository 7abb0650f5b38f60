package main

import (
	"time"

	"github.com/peerlimit/peerlimit/auth"
)

// principalView is who a key stands for, as POST /v1/auth/verify answers it.
type principalView struct {
	Project  string               `json:"project"`
	Scopes   []string             `json:"scopes"`
	Metadata map[string]string    `json:"metadata"`
	Limits   map[string]limitView `json:"limits"`
	Expires  *time.Time           `json:"expires_at,omitempty"`
}

// limitView is a limit that a key carries for a policy.
type limitView struct {
	Limit    int64 `json:"limit"`
	PeriodMS int64 `json:"period_ms"`
	Burst    int64 `json:"burst,omitempty"`
}

func viewLimits(limits map[string]auth.Limit) map[string]limitView {
	views := make(map[string]limitView, len(limits))
	for policy, l := range limits {
		views[policy] = limitView{l.Limit, l.Period.Milliseconds(), l.Burst}
	}
	return views
}

func viewPrincipal(p *auth.Principal) *principalView {
	return &principalView{p.Project, nonNil(p.Scopes), nonNilMap(p.Metadata), viewLimits(p.Limits), instant(p.ExpiresAt)}
}

// keyView is what is shown of a key: everything but itself.
type keyView struct {
	ID         string               `json:"id"`
	Prefix     string               `json:"prefix"`
	Project    string               `json:"project"`
	Name       string               `json:"name,omitempty"`
	Scopes     []string             `json:"scopes"`
	Metadata   map[string]string    `json:"metadata"`
	Limits     map[string]limitView `json:"limits"`
	Disabled   bool                 `json:"disabled"`
	Created    time.Time            `json:"created_at"`
	Updated    time.Time            `json:"updated_at"`
	Expires    *time.Time           `json:"expires_at,omitempty"`
	LastUsed   *time.Time           `json:"last_used_at,omitempty"`
	Replaces   string               `json:"replaces,omitempty"`
	ReplacedBy string               `json:"replaced_by,omitempty"`
	Receipt    *receiptView         `json:"receipt,omitempty"`
}

func viewKey(k *auth.Key) keyView {
	return keyView{ID: k.ID, Prefix: k.Display, Project: k.Project, Name: k.Name, Scopes: nonNil(k.Scopes),
		Metadata: nonNilMap(k.Metadata), Limits: viewLimits(k.Limits), Disabled: k.Disabled,
		Created: k.CreatedAt, Updated: k.UpdatedAt, Expires: instant(k.ExpiresAt), LastUsed: instant(k.LastUsedAt),
		Replaces: k.Replaces, ReplacedBy: k.ReplacedBy}
}

// receiptView says how far the news of a change came.
type receiptView struct {
	Reached   int      `json:"reached"`
	Members   int      `json:"members"`
	TookMS    int64    `json:"took_ms"`
	Unreached []string `json:"unreached,omitempty"`
}

type receiptAnswer struct {
	Receipt receiptView `json:"receipt"`
}

func viewReceipt(r *auth.Receipt) *receiptView {
	return &receiptView{r.Reached, r.Members, roundUp(r.Took, time.Millisecond), r.Unreached}
}

// recordView is one line of a key's audit trail.
type recordView struct {
	At     time.Time `json:"at"`
	Action string    `json:"action"`
	Actor  string    `json:"actor,omitempty"`
	Detail string    `json:"detail,omitempty"`
}

// instant is nil for the zero time.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func nonNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func nonNilMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
