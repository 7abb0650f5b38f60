// Package columns is what the SQL stores have in common: the encoding of a key's lists and maps in text columns, and
// the reckoning of where a list of changes begins.
package columns

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/peerlimit/peerlimit/auth"
)

// Lists are a key's lists and maps as JSON; "" where empty.
type Lists struct{ Scopes, Metadata, Limits string }

// Encode returns the lists of a key.
func Encode(k *auth.Key) (Lists, error) {
	var l Lists
	for _, c := range []struct {
		column *string
		value  any
		length int
	}{{&l.Scopes, k.Scopes, len(k.Scopes)}, {&l.Metadata, k.Metadata, len(k.Metadata)}, {&l.Limits, k.Limits, len(k.Limits)}} {
		if c.length == 0 {
			continue
		}
		b, err := json.Marshal(c.value)
		if err != nil {
			return Lists{}, fmt.Errorf("encode key %s: %w", k.ID, err)
		}
		*c.column = string(b)
	}
	return l, nil
}

// Decode sets the lists of a key.
func (l *Lists) Decode(k *auth.Key) error {
	for _, c := range []struct {
		column string
		value  any
	}{{l.Scopes, &k.Scopes}, {l.Metadata, &k.Metadata}, {l.Limits, &k.Limits}} {
		if c.column == "" {
			continue
		}
		if err := json.Unmarshal([]byte(c.column), c.value); err != nil {
			return fmt.Errorf("decode key %s: %w", k.ID, err)
		}
	}
	return nil
}

// Micros is an instant as a number: microseconds since 1970; nil for the zero time.
func Micros(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	n := t.UnixMicro()
	return &n
}

// Time is the instant of a number.
func Time(micros *int64) time.Time {
	if micros == nil {
		return time.Time{}
	}
	return time.UnixMicro(*micros).UTC()
}

// Changes makes the answer to auth.Store.Changes from what was found, the newest first.
func Changes(latest, after uint64, limit int, newestFirst []auth.ChangedKey) auth.Changes {
	c := auth.Changes{Latest: latest, Since: min(after, latest), Keys: newestFirst}
	for i, j := 0, len(c.Keys)-1; i < j; i, j = i+1, j-1 {
		c.Keys[i], c.Keys[j] = c.Keys[j], c.Keys[i]
	}
	if len(c.Keys) == limit && limit > 0 {
		c.Since = max(c.Since, c.Keys[0].Revision-1)
	}
	return c
}
