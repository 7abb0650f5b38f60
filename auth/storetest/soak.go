package storetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/auth"
)

// Soak fills a store with as many keys as PEERLIMIT_TEST_SOAK_KEYS says, such as 1000000, and logs a table of what its
// calls then take. Without that it is skipped.
func Soak(t *testing.T, open func(t *testing.T) auth.Store) {
	t.Helper()
	n, _ := strconv.Atoi(os.Getenv("PEERLIMIT_TEST_SOAK_KEYS"))
	if n < 1000 {
		t.Skip("PEERLIMIT_TEST_SOAK_KEYS is not set: want the number of keys, at least 1000")
	}
	s, ctx := open(t), t.Context()
	var table strings.Builder
	fmt.Fprintf(&table, "%d keys\n%-28s %8s %10s %10s %10s\n", n, "call", "times", "p50", "p99", "max")
	measure := func(name string, times int, f func(i int) error) {
		t.Helper()
		took := make([]time.Duration, times)
		for i := range took {
			began := time.Now()
			if err := f(i); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			took[i] = time.Since(began)
		}
		slices.Sort(took)
		round := func(d time.Duration) time.Duration { return d.Round(time.Microsecond / 10) }
		fmt.Fprintf(&table, "%-28s %8d %10v %10v %10v\n", name, times,
			round(took[times/2]), round(took[times*99/100]), round(took[times-1]))
	}

	const batch = 1000
	var keys []auth.Key
	measure("create 1000 at once", n/batch, func(int) error {
		more := RandomKeys(batch, fmt.Sprint("project-", len(keys)/batch%100))
		keys = append(keys, more...)
		return s.Create(ctx, more, record(auth.ActionCreate))
	})
	rng := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // to be repeated
	any := func() *auth.Key { return &keys[rng.IntN(len(keys))] }
	measure("create", 300, func(int) error { return s.Create(ctx, RandomKeys(1, "p"), record(auth.ActionCreate)) })
	measure("look-up", 20000, func(int) error { _, err := s.Lookup(ctx, any().Digest); return err })
	measure("look-up of an unknown key", 20000, func(i int) error {
		if _, err := s.Lookup(ctx, auth.DigestOf(fmt.Sprint("unknown ", i))); err != auth.ErrNotFound { //nolint:errorlint // as it is
			return fmt.Errorf("error %w", err)
		}
		return nil
	})
	measure("page of 100", 300, func(int) error { return page(s.List(ctx, auth.Query{After: any().ID})) })
	measure("page of 100 of a project", 300, func(i int) error {
		return page(s.List(ctx, auth.Query{After: any().ID, Project: fmt.Sprint("project-", i%100)}))
	})
	disable := func(k *auth.Key) (*auth.Key, error) { k.Disabled = true; return nil, nil }
	measure("disable", 300, func(int) error { _, err := s.Change(ctx, any().ID, record(auth.ActionDisable), disable); return err })
	measure("changes since the last", 2000, func(i int) error { _, err := s.Changes(ctx, uint64(300-i%2), 1024); return err })
	measure("changes, 300 of them", 300, func(int) error { _, err := s.Changes(ctx, 0, 1024); return err })
	measure("history", 300, func(int) error { _, err := s.History(ctx, any().ID, 100); return err })
	measure("touch 1000", 30, func(i int) error {
		uses := make([]auth.Use, 1000)
		for j := range uses {
			uses[j] = auth.Use{ID: keys[(i*1000+j*7)%len(keys)].ID, At: at.Add(time.Duration(i) * time.Minute)}
		}
		return s.Touch(ctx, uses)
	})
	measure("delete", 300, func(i int) error { _, err := s.Delete(ctx, keys[i].ID, record(auth.ActionDelete)); return err })
	t.Log("\n" + table.String())
}

func page(_ []auth.Key, err error) error { return err }
