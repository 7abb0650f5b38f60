package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/postgres"
	"github.com/peerlimit/peerlimit/auth/sqlite"
)

// keyStoreFlag is where serve keeps API keys: memory, sqlite:PATH or a
// PostgreSQL URL, which may have a password and is never shown. Empty: a file of
// the cluster's name in the user's state directory.
type keyStoreFlag string

// check checks the form. It is not done while flags are parsed, for the parser's
// errors repeat the variable that a flag came from, and this one may hold a
// password.
func (f keyStoreFlag) check() error {
	path, isFile := strings.CutPrefix(string(f), "sqlite:")
	switch {
	case f == "", f == "memory", isFile && path != "", isPostgres(string(f)):
		return nil
	case isFile:
		return usagef("--key-store: needs a path after sqlite:")
	}
	return usagef("--key-store: must be memory, sqlite:PATH or postgres://…")
}

func isPostgres(s string) bool {
	return strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://")
}

// keyStore is an opened store of API keys.
type keyStore struct {
	auth.Store
	io.Closer
	// near: reading it is as quick as asking another member.
	near bool
}

type noCloser struct{}

func (noCloser) Close() error { return nil }

// open opens the store, for members of that cluster.
func (f keyStoreFlag) open(ctx context.Context, cluster string) (*keyStore, error) {
	if f == "memory" {
		return &keyStore{auth.NewMemory(), noCloser{}, true}, nil
	}
	if isPostgres(string(f)) {
		// It is connected to when it is needed, so that a member can start
		// while it is away.
		store, err := postgres.Open(string(f))
		if err != nil {
			return nil, usagef("--key-store: is no connection string that PostgreSQL's client can read")
		}
		return &keyStore{store, store, false}, nil
	}
	path, given := strings.CutPrefix(string(f), "sqlite:")
	if !given {
		dir, err := stateDir()
		if err != nil {
			return nil, err
		}
		path = filepath.Join(dir, "keys-"+cluster+".db")
	}
	store, err := sqlite.Open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("--key-store: %w", err)
	}
	return &keyStore{store, store, true}, nil
}

// stateDir is peerlimit's directory for what outlives a process, made where it is
// missing: $XDG_STATE_HOME/peerlimit or ~/.local/state/peerlimit, as the XDG Base
// Directory Specification 0.8 has it.
func stateDir() (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) { // the specification: relative ones are to be ignored
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("--key-store: %w", err)
		}
		dir = filepath.Join(home, ".local", "state")
	}
	dir = filepath.Join(dir, "peerlimit")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("--key-store: %w", err)
	}
	return dir, nil
}
