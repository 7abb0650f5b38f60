// Package sqlite keeps API keys in an SQLite file, without cgo.
//
// It is the store of a node that has nothing else: one file (and its -wal and -shm beside it), durable through a
// crash of the process and of the machine, and shared by the processes of one machine. It must not be put on a
// network file system: SQLite's locks are not kept there (https://www.sqlite.org/wal.html, "Overview").
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit/auth"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// Store is an auth.Store in an SQLite file; Open makes one.
type Store struct {
	// One connection writes, so that writers of this process wait in line here and not, by polling, for SQLite's
	// lock. Others read, each from the last commit, and wait for nobody (that is what WAL is for).
	write, read *sql.DB
	lookup, get *sql.Stmt
}

var _ auth.Store = (*Store)(nil)

// Open opens the file at path, makes it where it is missing (readable by its owner only), and brings its tables up
// to date. The directory has to be there. Close it when done.
func Open(ctx context.Context, path string) (*Store, error) {
	if path == "" || strings.HasPrefix(path, ":memory:") || strings.ContainsRune(path, 0) {
		return nil, fmt.Errorf("sqlite: path %q: want a file's; auth.NewMemory keeps keys in memory", path)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	// SQLite would make it readable by all; its other files get this one's permissions.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	for deadline := time.Now().Add(busyTimeout); ; {
		s := &Store{}
		err := s.open(ctx, path)
		if err == nil {
			return s, nil
		}
		err = errors.Join(fmt.Errorf("sqlite: %s: %w", path, err), s.Close())
		if !busy(err) || time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// busyTimeout is how long a connection waits for those of other processes.
const busyTimeout = 5 * time.Second

// busy reports whether another process stood in the way. While it turns a new file to WAL, or is the last to close
// one, SQLite says so at once and does not wait as it does elsewhere (https://www.sqlite.org/wal.html, "Sometimes
// Queries Return SQLITE_BUSY In WAL Mode").
func busy(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == lib.SQLITE_BUSY // the rest says which kind
}

func (s *Store) open(ctx context.Context, path string) (err error) {
	// FULL: with NORMAL the last commits could be lost with the machine's power, a revocation among them.
	if s.write, err = database(path, "_txlock=immediate", "_journal_mode=WAL", "_synchronous=FULL"); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if err := migrate(ctx, s.write); err != nil {
		return err
	}
	if s.read, err = database(path, "_query_only=1"); err != nil {
		return err
	}
	readers := max(4, runtime.GOMAXPROCS(0))
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	if s.lookup, err = s.read.PrepareContext(ctx, selectKey+"WHERE digest = ?"); err != nil {
		return err
	}
	s.get, err = s.read.PrepareContext(ctx, selectKey+"WHERE id = ?")
	return err
}

// database returns a pool of connections with these parameters.
func database(path string, params ...string) (*sql.DB, error) {
	params = append(params, fmt.Sprintf("_busy_timeout=%d", busyTimeout.Milliseconds()), "_dqs=0", "_defensive=1")
	u := url.URL{Scheme: "file", Path: path, RawQuery: strings.Join(params, "&")}
	c, err := sqlite.NewConnector(u.String())
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(c), nil
}

// Close closes the file. It may be called twice.
func (s *Store) Close() error {
	var errs []error
	// The one that writes last: the last connection to close writes the log back into the file.
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// taken turns a violated uniqueness into auth.ErrExists.
func taken(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() {
		case lib.SQLITE_CONSTRAINT_UNIQUE, lib.SQLITE_CONSTRAINT_PRIMARYKEY:
			return auth.ErrExists
		}
	}
	return err
}

// wrap says where an error is from; those that callers act on stay themselves.
func wrap(what string, err error) error {
	if err == nil || errors.Is(err, auth.ErrNotFound) || errors.Is(err, auth.ErrExists) {
		return err
	}
	return fmt.Errorf("sqlite: %s: %w", what, err)
}
