package auth

import (
	"context"
	"time"
)

// Store keeps keys. Package auth has one in memory, auth/sqlite and auth/postgres have durable ones; auth/storetest
// checks that an implementation does what is written here.
//
// Methods may be called concurrently. What a call wrote is seen by every call, of any process, that begins after it
// returned. Keys handed in or out are not shared: neither side sees the other's later changes. Instants are kept to
// the microsecond, in UTC.
type Store interface {
	// Lookup returns the key with that digest, or ErrNotFound.
	Lookup(ctx context.Context, d Digest) (Key, error)
	// Get returns the key with that ID, or ErrNotFound.
	Get(ctx context.Context, id string) (Key, error)
	// List returns keys in order of ID.
	List(ctx context.Context, q Query) ([]Key, error)
	// Create adds keys, all or none, and a record for each, with the key's ID and digest filled in. ErrExists where
	// one's ID or digest is taken.
	Create(ctx context.Context, keys []Key, r Record) error
	// Change applies edit to the key with that ID and returns the key as it then is, in one transaction with a
	// record and, where edit returns one, a new key. Key.Revision becomes the next revision of the store. Without
	// such a key: ErrNotFound. An error of edit is returned as it is, and nothing changes. edit may run more than
	// once.
	Change(ctx context.Context, id string, r Record, edit func(*Key) (add *Key, err error)) (Key, error)
	// Delete removes the key with that ID and returns it as it was, with the revision of its removal. Without such
	// a key: ErrNotFound.
	Delete(ctx context.Context, id string, r Record) (Key, error)
	// Changes returns the latest revision and the keys that were changed or deleted after the given one: the newest
	// limit of them.
	Changes(ctx context.Context, after uint64, limit int) (Changes, error)
	// Touch sets each key's LastUsedAt, if it is later than what is there. It is no change: no revision, no record.
	// Keys that are gone are skipped.
	Touch(ctx context.Context, uses []Use) error
	// History returns the records of the key with that ID, the newest first, at most limit. They outlive the key.
	History(ctx context.Context, id string, limit int) ([]Record, error)
}

// Query selects a page of keys.
type Query struct {
	// Project, where not empty, selects the keys of one project.
	Project string
	// After is the ID after which the page begins; empty: the first page.
	After string
	// Limit is the number of keys at most, 1 to 1,000; 0: 100.
	Limit int
}

// Actions that are recorded.
const (
	ActionCreate  = "create"
	ActionImport  = "import"
	ActionUpdate  = "update"
	ActionDisable = "disable"
	ActionEnable  = "enable"
	ActionRotate  = "rotate"
	ActionDelete  = "delete"
)

// Record is one line of the audit trail, written in the transaction of what it tells of.
type Record struct {
	// At is when, by the clock of the member that did it.
	At time.Time `json:"at"`
	// Action is one of the Action constants.
	Action string `json:"action"`
	// Actor is who, as given by WithActor; empty: not told.
	Actor string `json:"actor,omitempty"`
	// Detail says what was changed, for people. It holds no secret.
	Detail string `json:"detail,omitempty"`

	// KeyID and Digest name the key; Revision is the store's, 0 for a creation. The Store fills them in.
	KeyID    string `json:"key_id"`
	Digest   Digest `json:"sha256"`
	Revision uint64 `json:"revision,omitempty"`
}

// Changes are the revisions of a store from one to another.
//
// Revisions are given in the order of commits: whoever has seen revision n will never find a lower one that was not
// there before. A member confirms by them that it has missed nothing.
type Changes struct {
	// Latest is the highest revision; 0: nothing was ever changed.
	Latest uint64
	// Since is where Keys begin: they are all that changed from Since (not included) to Latest. It is higher than
	// what was asked for where that were more than the limit.
	Since uint64
	// Keys are in ascending order of revision.
	Keys []ChangedKey
}

// ChangedKey is one change.
type ChangedKey struct {
	Digest   Digest
	Revision uint64
}

// Use is when a key was last used.
type Use struct {
	ID string
	At time.Time
}
