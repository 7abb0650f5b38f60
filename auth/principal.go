package auth

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"
)

// Principal is who a verified key stands for. All callers that present the key share one: read it, don't change it.
type Principal struct {
	// ID is the key's ID, for logs and as a key to limit by. It is no secret.
	ID      string `json:"id"`
	Project string `json:"project"`
	// Display is the key's display prefix, such as "pl_live_Ab3d…".
	Display   string            `json:"prefix"`
	Scopes    []string          `json:"scopes"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	Limits    map[string]Limit  `json:"limits,omitempty"`
	ExpiresAt time.Time         `json:"expires_at,omitzero"`
}

// Has reports whether the principal has every one of the scopes. Scopes are compared as they are: there are no
// wildcards and no hierarchy.
func (p *Principal) Has(scopes ...string) bool {
	if p == nil {
		return false
	}
	for _, s := range scopes {
		if !slices.Contains(p.Scopes, s) {
			return false
		}
	}
	return true
}

// Limit returns the limit that this key has for a policy of that name, to be handed to a limiter in the policy's
// place.
func (p *Principal) Limit(policy string) (Limit, bool) {
	if p == nil {
		return Limit{}, false
	}
	l, ok := p.Limits[policy]
	return l, ok
}

// String names the key and its project. Metadata are left out: they may be personal.
func (p Principal) String() string { return p.ID + " (" + p.Display + ", project " + p.Project + ")" }

// Format prints what String returns, whatever the verb.
func (p Principal) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) }

// LogValue logs ID, display prefix and project.
func (p Principal) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", p.ID), slog.String("prefix", p.Display), slog.String("project", p.Project))
}
