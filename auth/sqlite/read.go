package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/internal/columns"
)

const selectKey = `SELECT id, digest, display, project, name, scopes, metadata, limits, disabled,
	created_at, updated_at, expires_at, last_used_at, replaces, replaced_by, revision FROM auth_keys `

type row interface{ Scan(...any) error }

func scan(r row) (auth.Key, error) {
	var k auth.Key
	var lists columns.Lists
	var created, updated, expires, used *int64
	dest := []any{
		&k.ID, (*digestColumn)(&k.Digest), &k.Display, &k.Project, &k.Name, &lists.Scopes, &lists.Metadata, &lists.Limits,
		&k.Disabled, &created, &updated, &expires, &used, &k.Replaces, &k.ReplacedBy, &k.Revision,
	}
	if err := r.Scan(dest...); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			err = auth.ErrNotFound
		}
		return auth.Key{}, err
	}
	k.CreatedAt, k.UpdatedAt = columns.Time(created), columns.Time(updated)
	k.ExpiresAt, k.LastUsedAt = columns.Time(expires), columns.Time(used)
	return k, lists.Decode(&k)
}

// digestColumn reads 32 bytes.
type digestColumn auth.Digest

// Scan implements sql.Scanner.
func (d *digestColumn) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != len(d) {
		return fmt.Errorf("digest: %T of %d bytes, want %d bytes", v, len(b), len(d))
	}
	copy(d[:], b)
	return nil
}

// Lookup implements auth.Store.
func (s *Store) Lookup(ctx context.Context, d auth.Digest) (auth.Key, error) {
	k, err := scan(s.lookup.QueryRowContext(ctx, d[:]))
	return k, wrap("look up key", err)
}

// Get implements auth.Store.
func (s *Store) Get(ctx context.Context, id string) (auth.Key, error) {
	k, err := scan(s.get.QueryRowContext(ctx, id))
	return k, wrap("get key", err)
}

// List implements auth.Store.
func (s *Store) List(ctx context.Context, q auth.Query) (keys []auth.Key, err error) {
	where, args := "WHERE id > ? ORDER BY id LIMIT ?", []any{q.After, q.Size()}
	if q.Project != "" {
		where, args = "WHERE project = ? AND id > ? ORDER BY id LIMIT ?", []any{q.Project, q.After, q.Size()}
	}
	err = s.each(ctx, selectKey+where, args, func(r row) error {
		k, err := scan(r)
		keys = append(keys, k)
		return err
	})
	return keys, wrap("list keys", err)
}

const selectChanges = `SELECT r.revision, c.revision, c.digest FROM auth_revision r LEFT JOIN (
	SELECT revision, digest FROM auth_records WHERE revision > ? ORDER BY revision DESC LIMIT ?) c
	ORDER BY c.revision DESC`

// Changes implements auth.Store. One statement reads one state of the file: the latest revision and the changes up
// to it belong together.
func (s *Store) Changes(ctx context.Context, after uint64, limit int) (auth.Changes, error) {
	var latest uint64
	var found []auth.ChangedKey
	err := s.each(ctx, selectChanges, []any{after, limit}, func(r row) error {
		var revision *uint64
		var digest []byte
		if err := r.Scan(&latest, &revision, &digest); err != nil || revision == nil {
			return err
		}
		c := auth.ChangedKey{Revision: *revision}
		found = append(found, c)
		return (*digestColumn)(&found[len(found)-1].Digest).Scan(digest)
	})
	if err != nil {
		return auth.Changes{}, wrap("read changes", err)
	}
	return columns.Changes(latest, after, limit, found), nil
}

// History implements auth.Store.
func (s *Store) History(ctx context.Context, id string, limit int) (records []auth.Record, err error) {
	const query = `SELECT at, action, actor, detail, key_id, digest, coalesce(revision, 0) FROM auth_records
		WHERE key_id = ? ORDER BY seq DESC LIMIT ?`
	err = s.each(ctx, query, []any{id, limit}, func(r row) error {
		var rec auth.Record
		var at *int64
		err := r.Scan(&at, &rec.Action, &rec.Actor, &rec.Detail, &rec.KeyID, (*digestColumn)(&rec.Digest), &rec.Revision)
		rec.At = columns.Time(at)
		records = append(records, rec)
		return err
	})
	return records, wrap("read records", err)
}

// each calls f with every row of a query.
func (s *Store) each(ctx context.Context, query string, args []any, f func(row) error) error {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
