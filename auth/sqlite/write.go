package sqlite

import (
	"context"
	"database/sql"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/internal/columns"
)

const insertKey = `INSERT INTO auth_keys (display, project, name, scopes, metadata, limits, disabled, created_at,
	updated_at, expires_at, last_used_at, replaces, replaced_by, revision, digest, id)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

// updateKey takes what insertKey takes. A key's digest stays.
const updateKey = `UPDATE auth_keys SET display = ?, project = ?, name = ?, scopes = ?, metadata = ?, limits = ?,
	disabled = ?, created_at = ?, updated_at = ?, expires_at = ?, last_used_at = ?, replaces = ?, replaced_by = ?,
	revision = ? WHERE digest = ? AND id = ?`

const insertRecord = `INSERT INTO auth_records (at, action, actor, detail, key_id, digest, revision)
	VALUES (?, ?, ?, ?, ?, ?, nullif(?, 0))`

// keyArgs are the arguments of insertKey and updateKey.
func keyArgs(k *auth.Key) ([]any, error) {
	lists, err := columns.Encode(k)
	if err != nil {
		return nil, err
	}
	return []any{
		k.Display, k.Project, k.Name, lists.Scopes, lists.Metadata, lists.Limits, k.Disabled,
		k.CreatedAt.UnixMicro(), k.UpdatedAt.UnixMicro(), columns.Micros(k.ExpiresAt), columns.Micros(k.LastUsedAt),
		k.Replaces, k.ReplacedBy, k.Revision, k.Digest[:], k.ID,
	}, nil
}

func recordArgs(r auth.Record, k *auth.Key, revision uint64) []any {
	return []any{r.At.UnixMicro(), r.Action, r.Actor, r.Detail, k.ID, k.Digest[:], revision}
}

// transact runs f in a transaction that has the write lock from its beginning.
func (s *Store) transact(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// Create implements auth.Store.
func (s *Store) Create(ctx context.Context, keys []auth.Key, r auth.Record) error {
	err := s.transact(ctx, func(tx *sql.Tx) error { return add(ctx, tx, keys, r) })
	return wrap("create key", err)
}

func add(ctx context.Context, tx *sql.Tx, keys []auth.Key, r auth.Record) error {
	key, err := tx.PrepareContext(ctx, insertKey)
	if err != nil {
		return err
	}
	defer func() { _ = key.Close() }()
	rec, err := tx.PrepareContext(ctx, insertRecord)
	if err != nil {
		return err
	}
	defer func() { _ = rec.Close() }()
	for i := range keys {
		args, err := keyArgs(&keys[i])
		if err != nil {
			return err
		}
		if _, err := key.ExecContext(ctx, args...); err != nil {
			return taken(err)
		}
		if _, err := rec.ExecContext(ctx, recordArgs(r, &keys[i], 0)...); err != nil {
			return err
		}
	}
	return nil
}

// next raises the store's revision and records the change.
func next(ctx context.Context, tx *sql.Tx, k *auth.Key, r auth.Record) (revision uint64, err error) {
	const raise = "UPDATE auth_revision SET revision = revision + 1 RETURNING revision"
	if err := tx.QueryRowContext(ctx, raise).Scan(&revision); err != nil {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, insertRecord, recordArgs(r, k, revision)...)
	return revision, err
}

// Change implements auth.Store.
func (s *Store) Change(ctx context.Context, id string, r auth.Record, edit func(*auth.Key) (*auth.Key, error)) (auth.Key, error) {
	var out auth.Key
	var refused error
	err := s.transact(ctx, func(tx *sql.Tx) error {
		k, err := scan(tx.QueryRowContext(ctx, selectKey+"WHERE id = ?", id))
		if err != nil {
			return err
		}
		added, err := edit(&k)
		if err != nil {
			refused = err
			return err
		}
		if added != nil {
			created := auth.Record{At: r.At, Action: auth.ActionCreate, Actor: r.Actor, Detail: "replaces " + id}
			if err := add(ctx, tx, []auth.Key{*added}, created); err != nil {
				return err
			}
		}
		if k.Revision, err = next(ctx, tx, &k, r); err != nil {
			return err
		}
		args, err := keyArgs(&k)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, updateKey, args...); err != nil {
			return err
		}
		out = k.Clone() // edit may have kept k's maps
		return nil
	})
	if refused != nil {
		return auth.Key{}, refused
	}
	if err != nil {
		return auth.Key{}, wrap("change key", err)
	}
	return out, nil
}

// Delete implements auth.Store.
func (s *Store) Delete(ctx context.Context, id string, r auth.Record) (auth.Key, error) {
	var out auth.Key
	err := s.transact(ctx, func(tx *sql.Tx) (err error) {
		if out, err = scan(tx.QueryRowContext(ctx, selectKey+"WHERE id = ?", id)); err != nil {
			return err
		}
		if _, err = tx.ExecContext(ctx, "DELETE FROM auth_keys WHERE id = ?", id); err != nil {
			return err
		}
		out.Revision, err = next(ctx, tx, &out, r)
		return err
	})
	if err != nil {
		return auth.Key{}, wrap("delete key", err)
	}
	return out, nil
}

// Touch implements auth.Store.
func (s *Store) Touch(ctx context.Context, uses []auth.Use) error {
	if len(uses) == 0 {
		return nil
	}
	err := s.transact(ctx, func(tx *sql.Tx) error {
		const update = "UPDATE auth_keys SET last_used_at = ?1 WHERE id = ?2 AND (last_used_at IS NULL OR last_used_at < ?1)"
		stmt, err := tx.PrepareContext(ctx, update)
		if err != nil {
			return err
		}
		defer func() { _ = stmt.Close() }()
		for _, u := range uses {
			if _, err := stmt.ExecContext(ctx, u.At.UnixMicro(), u.ID); err != nil {
				return err
			}
		}
		return nil
	})
	return wrap("touch keys", err)
}
