package postgres_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/postgres"
	"github.com/peerlimit/peerlimit/auth/storetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// schema returns the address of an empty schema of the server in PEERLIMIT_TEST_POSTGRES.
func schema(t testing.TB) string {
	t.Helper()
	address := os.Getenv("PEERLIMIT_TEST_POSTGRES")
	if address == "" {
		t.Skip("PEERLIMIT_TEST_POSTGRES is not set: want the address of a PostgreSQL server, postgres://user@host:port/database")
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("test_%d", time.Now().UnixNano())
	admin(t, address, "CREATE SCHEMA "+name)
	t.Cleanup(func() { admin(t, address, "DROP SCHEMA "+name+" CASCADE") })
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	return u.String()
}

func admin(t testing.TB, address, statement string) {
	t.Helper()
	ctx := context.Background() // also when the test is over
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, address string) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(address)
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
	storetest.Run(t, func(t *testing.T) auth.Store { return open(t, schema(t)) })
}

func TestMigrateAtOnce(t *testing.T) {
	address := schema(t)
	var wg sync.WaitGroup
	keys := storetest.RandomKeys(8, "p")
	for i := range keys {
		s := open(t, address)
		wg.Go(func() {
			if err := s.Create(t.Context(), keys[i:i+1], auth.Record{Action: auth.ActionCreate}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := open(t, address).List(t.Context(), auth.Query{}); err != nil || len(got) != len(keys) {
		t.Errorf("%d keys, %v, want %d", len(got), err, len(keys))
	}
}

func TestNewerTablesAreRefused(t *testing.T) {
	address := schema(t)
	if err := open(t, address).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	admin(t, address, "INSERT INTO peerlimit_auth_migrations (version) VALUES (1000)")
	if err := open(t, address).Migrate(t.Context()); err == nil || !strings.Contains(err.Error(), "version 1000") {
		t.Errorf("error %v, want one that names version 1000", err)
	}
}

func TestReaderNeedsNoRightToCreate(t *testing.T) {
	address := schema(t)
	if err := open(t, address).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	role := u.Query().Get("search_path") + "_role"
	admin(t, address, "CREATE ROLE "+role+" LOGIN")
	t.Cleanup(func() { admin(t, address, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	admin(t, address, "GRANT USAGE ON SCHEMA "+u.Query().Get("search_path")+" TO "+role+
		"; GRANT SELECT ON ALL TABLES IN SCHEMA "+u.Query().Get("search_path")+" TO "+role)
	u.User = url.User(role)
	if _, err := open(t, u.String()).List(t.Context(), auth.Query{}); err != nil {
		t.Error(err)
	}
}

func TestOpen(t *testing.T) {
	if _, err := postgres.Open("postgres://u:secret@host:notaport/db"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v, want one without the password", err)
	}
	// Nobody listens there: Open does not mind, the calls say so.
	s := open(t, "postgres://u:hidden@127.0.0.1:1/db")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := s.Get(ctx, "key"); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("error %v, want one without the password", err)
	}
}

func TestSoak(t *testing.T) {
	storetest.Soak(t, func(t *testing.T) auth.Store { return open(t, schema(t)) })
}
