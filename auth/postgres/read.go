package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/internal/columns"
)

const selectKey = `SELECT id, digest, display, project, name, scopes, metadata, limits, disabled,
	created_at, updated_at, expires_at, last_used_at, replaces, replaced_by, revision FROM peerlimit_auth_keys `

func scan(r pgx.Row) (auth.Key, error) {
	var k auth.Key
	var digest []byte
	var lists columns.Lists
	var expires, used *time.Time
	err := r.Scan(&k.ID, &digest, &k.Display, &k.Project, &k.Name, &lists.Scopes, &lists.Metadata, &lists.Limits,
		&k.Disabled, &k.CreatedAt, &k.UpdatedAt, &expires, &used, &k.Replaces, &k.ReplacedBy, &k.Revision)
	if errors.Is(err, pgx.ErrNoRows) {
		err = auth.ErrNotFound
	}
	if err == nil {
		err = setDigest(&k.Digest, digest)
	}
	if err != nil {
		return auth.Key{}, err
	}
	k.CreatedAt, k.UpdatedAt = k.CreatedAt.UTC(), k.UpdatedAt.UTC()
	k.ExpiresAt, k.LastUsedAt = instant(expires), instant(used)
	return k, lists.Decode(&k)
}

func setDigest(d *auth.Digest, b []byte) error {
	if len(b) != len(d) {
		return fmt.Errorf("digest of %d bytes, want %d", len(b), len(d))
	}
	copy(d[:], b)
	return nil
}

func instant(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// Lookup implements auth.Store.
func (s *Store) Lookup(ctx context.Context, d auth.Digest) (auth.Key, error) {
	return s.one(ctx, "look up key", "WHERE digest = $1", d[:])
}

// Get implements auth.Store.
func (s *Store) Get(ctx context.Context, id string) (auth.Key, error) {
	return s.one(ctx, "get key", "WHERE id = $1", id)
}

func (s *Store) one(ctx context.Context, what, where string, arg any) (auth.Key, error) {
	if err := s.Migrate(ctx); err != nil {
		return auth.Key{}, err
	}
	k, err := scan(s.pool.QueryRow(ctx, selectKey+where, arg))
	return k, wrap(what, err)
}

// List implements auth.Store.
func (s *Store) List(ctx context.Context, q auth.Query) (keys []auth.Key, err error) {
	where, args := "WHERE id > $1 ORDER BY id LIMIT $2", []any{q.After, q.Size()}
	if q.Project != "" {
		where, args = "WHERE project = $1 AND id > $2 ORDER BY id LIMIT $3", []any{q.Project, q.After, q.Size()}
	}
	err = s.each(ctx, selectKey+where, args, func(r pgx.Row) error {
		k, err := scan(r)
		keys = append(keys, k)
		return err
	})
	return keys, wrap("list keys", err)
}

// Changes implements auth.Store. One statement has one snapshot: the latest revision and the changes up to it belong
// together.
func (s *Store) Changes(ctx context.Context, after uint64, limit int) (auth.Changes, error) {
	const query = `SELECT r.revision, c.revision, c.digest FROM peerlimit_auth_revision r LEFT JOIN (
		SELECT revision, digest FROM peerlimit_auth_records WHERE revision > $1 ORDER BY revision DESC LIMIT $2) c ON true
		WHERE r.one = 1 ORDER BY c.revision DESC` // one = 1: or the planner expects thousands, and compiles the query each time
	var latest uint64
	var found []auth.ChangedKey
	err := s.each(ctx, query, []any{after, limit}, func(r pgx.Row) error {
		var revision *uint64
		var digest []byte
		if err := r.Scan(&latest, &revision, &digest); err != nil || revision == nil {
			return err
		}
		c := auth.ChangedKey{Revision: *revision}
		err := setDigest(&c.Digest, digest)
		found = append(found, c)
		return err
	})
	if err != nil {
		return auth.Changes{}, wrap("read changes", err)
	}
	return columns.Changes(latest, after, limit, found), nil
}

// History implements auth.Store.
func (s *Store) History(ctx context.Context, id string, limit int) (records []auth.Record, err error) {
	const query = `SELECT at, action, actor, detail, key_id, digest, coalesce(revision, 0) FROM peerlimit_auth_records
		WHERE key_id = $1 ORDER BY seq DESC LIMIT $2`
	err = s.each(ctx, query, []any{id, limit}, func(r pgx.Row) error {
		var rec auth.Record
		var digest []byte
		if err := r.Scan(&rec.At, &rec.Action, &rec.Actor, &rec.Detail, &rec.KeyID, &digest, &rec.Revision); err != nil {
			return err
		}
		rec.At = rec.At.UTC()
		err := setDigest(&rec.Digest, digest)
		records = append(records, rec)
		return err
	})
	return records, wrap("read records", err)
}

// each calls f with every row of a query.
func (s *Store) each(ctx context.Context, query string, args []any, f func(pgx.Row) error) error {
	if err := s.Migrate(ctx); err != nil {
		return err
	}
	rows, err := s.pool.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
