package postgres

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// migrations are applied in order of name; their number is the version. One that was released is never changed.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock keeps processes that start at once from migrating at once; any number that nobody else takes.
const migrationLock = 0x7065_6572_6c69_6d74 // "peerlimt"

// migrate brings the tables up to this release's version, in one transaction. Tables of a newer release are refused.
// Where nothing is to be done it needs no right but to read.
func migrate(ctx context.Context, pool *pgxpool.Pool) error {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
			return err
		}
		var there bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass('peerlimit_auth_migrations') IS NOT NULL").Scan(&there); err != nil {
			return err
		}
		if !there {
			const table = `CREATE TABLE peerlimit_auth_migrations (
				version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())`
			if _, err := tx.Exec(ctx, table); err != nil {
				return err
			}
		}
		var version int
		const query = "SELECT coalesce(max(version), 0) FROM peerlimit_auth_migrations"
		if err := tx.QueryRow(ctx, query).Scan(&version); err != nil {
			return err
		}
		if version > len(names) {
			return fmt.Errorf("tables are of version %d, this release knows up to %d", version, len(names))
		}
		for ; version < len(names); version++ {
			script, err := fs.ReadFile(migrations, names[version])
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, string(script)); err != nil {
				return fmt.Errorf("%s: %w", names[version], err)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO peerlimit_auth_migrations (version) VALUES ($1)", version+1); err != nil {
				return err
			}
		}
		return nil
	})
}
