package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/internal/columns"
)

const insertKey = `INSERT INTO peerlimit_auth_keys (display, project, name, scopes, metadata, limits, disabled,
	created_at, updated_at, expires_at, last_used_at, replaces, replaced_by, revision, digest, id)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`

// updateKey takes what insertKey takes. A key's digest stays.
const updateKey = `UPDATE peerlimit_auth_keys SET display = $1, project = $2, name = $3, scopes = $4, metadata = $5,
	limits = $6, disabled = $7, created_at = $8, updated_at = $9, expires_at = $10, last_used_at = $11, replaces = $12,
	replaced_by = $13, revision = $14 WHERE digest = $15 AND id = $16`

const insertRecord = `INSERT INTO peerlimit_auth_records (at, action, actor, detail, key_id, digest, revision)
	VALUES ($1, $2, $3, $4, $5, $6, nullif($7::bigint, 0))`

// keyArgs are the arguments of insertKey and updateKey.
func keyArgs(k *auth.Key) ([]any, error) {
	lists, err := columns.Encode(k)
	if err != nil {
		return nil, err
	}
	return []any{
		k.Display, k.Project, k.Name, lists.Scopes, lists.Metadata, lists.Limits, k.Disabled, k.CreatedAt, k.UpdatedAt,
		nullable(k.ExpiresAt), nullable(k.LastUsedAt), k.Replaces, k.ReplacedBy, k.Revision, k.Digest[:], k.ID,
	}, nil
}

func nullable(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func recordArgs(r auth.Record, k *auth.Key, revision uint64) []any {
	return []any{r.At, r.Action, r.Actor, r.Detail, k.ID, k.Digest[:], revision}
}

func (s *Store) transact(ctx context.Context, f func(pgx.Tx) error) error {
	if err := s.Migrate(ctx); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, s.pool, f)
}

// Create implements auth.Store.
func (s *Store) Create(ctx context.Context, keys []auth.Key, r auth.Record) error {
	return wrap("create key", s.transact(ctx, func(tx pgx.Tx) error { return add(ctx, tx, keys, r) }))
}

// add inserts all in one round trip.
func add(ctx context.Context, tx pgx.Tx, keys []auth.Key, r auth.Record) error {
	var batch pgx.Batch
	for i := range keys {
		args, err := keyArgs(&keys[i])
		if err != nil {
			return err
		}
		batch.Queue(insertKey, args...)
		batch.Queue(insertRecord, recordArgs(r, &keys[i], 0)...)
	}
	return taken(tx.SendBatch(ctx, &batch).Close())
}

// next raises the store's revision and records the change. From here to the commit other changes wait: it is the
// last thing a transaction does but for writing the key.
func next(ctx context.Context, tx pgx.Tx, k *auth.Key, r auth.Record) (revision uint64, err error) {
	const raise = "UPDATE peerlimit_auth_revision SET revision = revision + 1 WHERE one = 1 RETURNING revision"
	if err := tx.QueryRow(ctx, raise).Scan(&revision); err != nil {
		return 0, err
	}
	_, err = tx.Exec(ctx, insertRecord, recordArgs(r, k, revision)...)
	return revision, err
}

// Change implements auth.Store.
func (s *Store) Change(ctx context.Context, id string, r auth.Record, edit func(*auth.Key) (*auth.Key, error)) (auth.Key, error) {
	var out auth.Key
	var refused error
	err := s.transact(ctx, func(tx pgx.Tx) error {
		k, err := scan(tx.QueryRow(ctx, selectKey+"WHERE id = $1 FOR UPDATE", id))
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
		if _, err := tx.Exec(ctx, updateKey, args...); err != nil {
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
	err := s.transact(ctx, func(tx pgx.Tx) (err error) {
		if out, err = scan(tx.QueryRow(ctx, selectKey+"WHERE id = $1 FOR UPDATE", id)); err != nil {
			return err
		}
		if _, err = tx.Exec(ctx, "DELETE FROM peerlimit_auth_keys WHERE id = $1", id); err != nil {
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

// Touch implements auth.Store. Rows are locked in order of ID, so that members that write the same ones don't lock
// each other out.
func (s *Store) Touch(ctx context.Context, uses []auth.Use) error {
	if len(uses) == 0 {
		return nil
	}
	if err := s.Migrate(ctx); err != nil {
		return err
	}
	const update = `WITH uses AS (SELECT id, max(at) AS at FROM unnest($1::text[], $2::timestamptz[]) AS u (id, at) GROUP BY id),
		locked AS (SELECT k.id, u.at FROM peerlimit_auth_keys k JOIN uses u ON u.id = k.id
			WHERE k.last_used_at IS NULL OR k.last_used_at < u.at ORDER BY k.id FOR NO KEY UPDATE OF k)
		UPDATE peerlimit_auth_keys k SET last_used_at = greatest(k.last_used_at, l.at) FROM locked l WHERE k.id = l.id`
	ids, ats := make([]string, len(uses)), make([]time.Time, len(uses))
	for i, u := range uses {
		ids[i], ats[i] = u.ID, u.At
	}
	_, err := s.pool.Exec(ctx, update, ids, ats)
	return wrap("touch keys", err)
}
