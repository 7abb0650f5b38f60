package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/sqlite"
	"github.com/peerlimit/peerlimit/auth/storetest"
)

func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) auth.Store { return open(t, filepath.Join(t.TempDir(), "keys.db")) })
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a ?#%41 'dir'")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(path, "keys.db")
	want := storetest.RandomKeys(1, "p")[0]
	s := open(t, path)
	if err := s.Create(t.Context(), []auth.Key{want}, auth.Record{Action: auth.ActionCreate}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, path).Get(t.Context(), want.ID)
	if err != nil || got.Digest != want.Digest {
		t.Errorf("after opening again: %v, %v", got, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file: %v, %v, want permissions 0600", info.Mode(), err)
	}
}

func TestOpenAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	keys := storetest.RandomKeys(8, "p")
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			s, err := sqlite.Open(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Create(t.Context(), keys[i:i+1], auth.Record{Action: auth.ActionCreate}); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := open(t, path).List(t.Context(), auth.Query{}); err != nil || len(got) != len(keys) {
		t.Errorf("%d keys, %v, want %d", len(got), err, len(keys))
	}
}

// Two handles stand for two processes: what one has committed the other sees at once.
func TestReadYourWritesAcrossHandles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	a, b := open(t, path), open(t, path)
	k := storetest.RandomKeys(1, "p")[0]
	if err := a.Create(t.Context(), []auth.Key{k}, auth.Record{Action: auth.ActionCreate}); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		writer, reader := a, b
		if i%2 == 1 {
			writer, reader = b, a
		}
		_, err := writer.Change(t.Context(), k.ID, auth.Record{Action: auth.ActionUpdate}, func(k *auth.Key) (*auth.Key, error) {
			k.Name = fmt.Sprint(i)
			return nil, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := reader.Lookup(t.Context(), k.Digest)
		if err != nil || got.Name != fmt.Sprint(i) {
			t.Fatalf("the other handle read %q, %v, want %d", got.Name, err, i)
		}
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", ":memory:", filepath.Join(dir, "missing", "keys.db"), dir, garbage} {
		if s, err := sqlite.Open(t.Context(), path); err == nil {
			t.Errorf("Open(%q): no error", path)
			_ = s.Close()
		}
	}
	if _, err := sqlite.Open(t.Context(), filepath.Join(dir, "missing", "keys.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing directory: error %v, want %v", err, os.ErrNotExist)
	}
}

func TestSoak(t *testing.T) {
	storetest.Soak(t, func(t *testing.T) auth.Store { return open(t, filepath.Join(t.TempDir(), "keys.db")) })
}
