// Package postgres keeps API keys in PostgreSQL, for services that have one.
//
// Every process of the service uses the same database. It has to be the primary: a replica that lags answers with
// keys that were revoked. Tables are named peerlimit_auth_…, in the first schema of the connection's search_path.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/peerlimit/peerlimit/auth"
)

// Store is an auth.Store in PostgreSQL; Open makes one.
type Store struct {
	pool *pgxpool.Pool

	migrated  atomic.Bool
	migrating sync.Mutex // held by the one call that brings the tables up to date
}

var _ auth.Store = (*Store)(nil)

const (
	// connectTimeout bounds one attempt to connect, where the address does not.
	connectTimeout = 2 * time.Second
	// uniqueViolation is SQLSTATE 23505 (PostgreSQL's manual, appendix A).
	uniqueViolation = "23505"
)

// Open returns a Store for a connection string, either form of libpq's, with pgxpool's parameters (pool_max_conns and
// so on). It only reads the string: tables are made and brought up to date by the first call that reaches the
// server, so that a process can start while the server is away. Migrate does it now. Close it when done.
func Open(connString string) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(connString)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err) // pgx leaves the password out of it
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectTimeout
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "peerlimit"
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return &Store{pool: pool}, nil
}

// Close closes all connections, after the calls that use them. It may be called twice.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

// Migrate makes the tables, or brings them up to date. Every other call does it where it was not done yet.
func (s *Store) Migrate(ctx context.Context) error {
	if s.migrated.Load() {
		return nil
	}
	s.migrating.Lock()
	defer s.migrating.Unlock()
	if s.migrated.Load() {
		return nil
	}
	if err := migrate(ctx, s.pool); err != nil {
		return fmt.Errorf("postgres: bring tables up to date: %w", err)
	}
	s.migrated.Store(true)
	return nil
}

// taken turns a violated uniqueness into auth.ErrExists.
func taken(err error) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == uniqueViolation {
		return auth.ErrExists
	}
	return err
}

// wrap says where an error is from; those that callers act on stay themselves.
func wrap(what string, err error) error {
	if err == nil || errors.Is(err, auth.ErrNotFound) || errors.Is(err, auth.ErrExists) {
		return err
	}
	return fmt.Errorf("postgres: %s: %w", what, err)
}
