package auth

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted stands wherever a secret would be printed.
const redacted = "[secret]"

// Secret is a whole API key. No way of printing, logging or encoding it shows it: only Reveal does. Its zero value
// is the empty secret.
type Secret struct {
	// A function rather than a string: fmt and the like print unexported fields of structs that hold a Secret by
	// reflection, without calling its methods, and of a function they can only print the address.
	reveal func() string
}

// NewSecret wraps a key.
func NewSecret(key string) Secret { return Secret{reveal: func() string { return key }} }

// Reveal returns the key itself, to be shown to its owner once.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// Digest returns the key's SHA-256.
func (s Secret) Digest() Digest { return DigestOf(s.Reveal()) }

// String hides the key.
func (s Secret) String() string { return redacted }

// GoString hides the key.
func (s Secret) GoString() string { return redacted }

// Format hides the key, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue hides the key.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the key, from encoding/json and encoding/xml too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
