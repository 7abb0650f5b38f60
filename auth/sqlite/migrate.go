package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
)

// migrations are applied in order of name; their number is the version. One that was released is never changed.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the tables up to this release's version. Processes that do it at once wait for each other: the
// version is read in the transaction that raises it. A file of a newer release is refused.
func migrate(ctx context.Context, db *sql.DB) error {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	const table = `CREATE TABLE IF NOT EXISTS auth_migrations (
		version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) STRICT`
	if _, err := tx.ExecContext(ctx, table); err != nil {
		return err
	}
	var version int
	if err := tx.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) FROM auth_migrations").Scan(&version); err != nil {
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
		if _, err := tx.ExecContext(ctx, string(script)); err != nil {
			return fmt.Errorf("%s: %w", names[version], err)
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO auth_migrations (version) VALUES (?)", version+1); err != nil {
			return err
		}
	}
	return tx.Commit()
}
