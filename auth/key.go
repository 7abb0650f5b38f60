package auth

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Key is what is known of an API key. The key itself is not among it.
type Key struct {
	// ID names the key in administration and logs: "key_" and 26 digits that sort by creation. It is no secret.
	ID string `json:"id"`
	// Digest is the key's SHA-256.
	Digest Digest `json:"-"`
	// Display is the key's prefix and a few of its digits, to recognise it by.
	Display  string            `json:"prefix"`
	Project  string            `json:"project"`
	Name     string            `json:"name,omitempty"`
	Scopes   []string          `json:"scopes"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Limits   map[string]Limit  `json:"limits,omitempty"`
	Disabled bool              `json:"disabled"`

	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	// ExpiresAt is the first instant at which the key is no longer valid; zero: it does not expire.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// LastUsedAt is exact to Config.LastUsedEvery; zero: never used.
	LastUsedAt time.Time `json:"last_used_at,omitzero"`

	// Replaces and ReplacedBy are the IDs of the keys before and after this one in a rotation.
	Replaces   string `json:"replaces,omitempty"`
	ReplacedBy string `json:"replaced_by,omitempty"`
	// Revision numbers the store's last change of this key; 0: unchanged since it was made.
	Revision uint64 `json:"revision"`
}

// Limit is a limit that a key carries for a policy, in the caller's limiter's terms.
type Limit struct {
	Limit  int64         // permits a Period, at least 1
	Period time.Duration // at least 1 ms
	Burst  int64         // permits at once; 0: as Limit
}

type limitJSON struct {
	Limit  int64  `json:"limit"`
	Period string `json:"period"`
	Burst  int64  `json:"burst,omitempty"`
}

// MarshalJSON writes the period as a Go duration, such as "1m0s".
func (l Limit) MarshalJSON() ([]byte, error) {
	return json.Marshal(limitJSON{l.Limit, l.Period.String(), l.Burst})
}

// UnmarshalJSON reads the period as a Go duration, such as "60s".
func (l *Limit) UnmarshalJSON(b []byte) error {
	var j limitJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	period, err := time.ParseDuration(j.Period)
	if err != nil {
		return fmt.Errorf("auth: limit period: %w", err)
	}
	*l = Limit{j.Limit, period, j.Burst}
	return nil
}

// Clone returns a copy that shares nothing with k.
func (k Key) Clone() Key {
	k.Scopes, k.Metadata, k.Limits = slices.Clone(k.Scopes), maps.Clone(k.Metadata), maps.Clone(k.Limits)
	return k
}

// verdict judges the key at an instant of the wall clock.
func (k *Key) verdict(now time.Time) Verdict {
	switch {
	case k.Disabled:
		return Disabled
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return Expired
	default:
		return Valid
	}
}

func (k *Key) principal() *Principal {
	return &Principal{
		ID: k.ID, Project: k.Project, Display: k.Display,
		Scopes: slices.Clone(k.Scopes), Metadata: maps.Clone(k.Metadata), Limits: maps.Clone(k.Limits),
		ExpiresAt: k.ExpiresAt,
	}
}

// String names the key and its project.
func (k Key) String() string { return k.ID + " (" + k.Display + ", project " + k.Project + ")" }

// Format prints what String returns, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue logs ID, display prefix and project.
func (k Key) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", k.ID), slog.String("prefix", k.Display), slog.String("project", k.Project))
}

// FieldError is one field of a request and what is wrong with it.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// InvalidError lists every field that is out of its bounds.
type InvalidError struct {
	Fields []FieldError
}

// Error names the fields and their bounds.
func (e *InvalidError) Error() string {
	s := "auth: invalid"
	for i, f := range e.Fields {
		if i > 0 {
			s += ";"
		}
		s += " " + f.Field + ": " + f.Detail
	}
	return s
}

func invalid(field, format string, args ...any) error {
	return &InvalidError{[]FieldError{{field, fmt.Sprintf(format, args...)}}}
}
