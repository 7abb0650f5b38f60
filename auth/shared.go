package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// Shared is a cache that the cluster's members share, asked after this member's own and before the store. It may
// lose and forget what it likes. A value that is older than a change of its key is recognised and not used. A
// *cache.Cache[[]byte] is one.
type Shared interface {
	// Get returns a value; false where there is none. The value is not changed.
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)
	// Set keeps a value for at most ttl. No verification waits for it.
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// Delete removes a value.
	Delete(ctx context.Context, key string) error
}

// NoShared, as Config.Shared, means that the store is asked for what this member does not have.
var NoShared Shared = noShared{}

type noShared struct{}

func (noShared) Get(context.Context, string) ([]byte, bool, error)        { return nil, false, nil }
func (noShared) Set(context.Context, string, []byte, time.Duration) error { return nil }
func (noShared) Delete(context.Context, string) error                     { return nil }

// kvShared is the cluster's KV as it is. Package cache is made of it too, but tells every member of every write, which
// readings of the store are not worth: here nothing depends on old values being gone.
type kvShared struct{ kv *cluster.KV }

func (s kvShared) Get(ctx context.Context, key string) ([]byte, bool, error) {
	it, ok, err := s.kv.Get(ctx, key)
	return it.Value, ok && it.Kind == cluster.KindValue, err
}

func (s kvShared) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return s.kv.Set(ctx, key, value, ttl)
}

func (s kvShared) Delete(ctx context.Context, key string) error { return s.kv.Delete(ctx, key) }

// sharedTimeout bounds each call of a Shared: beyond it the store is quicker.
const sharedTimeout = 100 * time.Millisecond

// maxSharedValue bounds what is read, in bytes; a key at its bounds takes some 40 KiB.
const maxSharedValue = 64 << 10

// sharedVersion changes when the value's meaning does; others are not used.
const sharedVersion = 1

// sharedValue is a known key as the shared cache has it.
type sharedValue struct {
	Version  int               `json:"v"`
	ID       string            `json:"id"`
	Digest   Digest            `json:"d"`
	Display  string            `json:"p"`
	Project  string            `json:"pr"`
	Scopes   []string          `json:"s,omitempty"`
	Metadata map[string]string `json:"m,omitempty"`
	Limits   map[string]Limit  `json:"l,omitempty"`
	Disabled bool              `json:"x,omitempty"`
	Expires  time.Time         `json:"e,omitzero"`
	// Read is when the store was read, by the clock of the member that did: the age is exact to the difference of
	// the members' clocks.
	Read time.Time `json:"r"`
	// What that member knew of changes before it read.
	Incarnation uint64 `json:"i"`
	Position    uint64 `json:"n"`
	Revision    uint64 `json:"w"`
}

func encodeShared(k *Key, read time.Time, known knowledge) ([]byte, error) {
	return json.Marshal(sharedValue{
		Version: sharedVersion, ID: k.ID, Digest: k.Digest, Display: k.Display, Project: k.Project, Scopes: k.Scopes,
		Metadata: k.Metadata, Limits: k.Limits, Disabled: k.Disabled, Expires: k.ExpiresAt, Read: read.UTC(),
		Incarnation: known.incarnation, Position: known.position, Revision: known.revision,
	})
}

var errShared = errors.New("auth: unusable value in the shared cache")

// decodeShared reads a value found under a digest.
func decodeShared(b []byte, d *Digest) (k Key, read time.Time, known knowledge, err error) {
	var v sharedValue
	if len(b) > maxSharedValue {
		return k, read, known, fmt.Errorf("%w: %d bytes, want at most %d", errShared, len(b), maxSharedValue)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return k, read, known, fmt.Errorf("%w: %w", errShared, err)
	}
	if v.Version != sharedVersion || !v.Digest.Equal(d) || v.ID == "" {
		return k, read, known, fmt.Errorf("%w: of version %d or of another key", errShared, v.Version)
	}
	k = Key{
		ID: v.ID, Digest: v.Digest, Display: v.Display, Project: v.Project, Scopes: v.Scopes, Metadata: v.Metadata,
		Limits: v.Limits, Disabled: v.Disabled, ExpiresAt: v.Expires,
	}
	return k, v.Read, knowledge{incarnation: v.Incarnation, position: v.Position, revision: v.Revision}, nil
}

// sharedKey is where the shared cache has a key.
func (a *Authenticator) sharedKey(d *Digest) string { return a.sharedPrefix + d.Hex() }
