package storetest

import (
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/peerlimit/peerlimit/auth"
)

// concurrentChanges counts in one key's metadata from many goroutines: none may be lost.
func concurrentChanges(t *testing.T, s auth.Store) {
	create(t, s, plain(1, "p"))
	const callers, each = 8, 10
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				_, err := s.Change(t.Context(), plain(1, "p").ID, record(auth.ActionUpdate), func(k *auth.Key) (*auth.Key, error) {
					n, _ := strconv.Atoi(k.Metadata["n"])
					k.Metadata = map[string]string{"n": strconv.Itoa(n + 1)}
					return nil, nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	k := get(t, s, plain(1, "p").ID)
	if k.Metadata["n"] != strconv.Itoa(callers*each) || k.Revision != callers*each {
		t.Errorf("counted %s at revision %d, want %d", k.Metadata["n"], k.Revision, callers*each)
	}
}

// revisionsInOrder reads what is new over and over while many keys are changed. A revision that appeared after a
// higher one had been seen would be missed for good.
func revisionsInOrder(t *testing.T, s auth.Store) {
	const writers, each = 8, 12
	var keys []auth.Key
	for i := range writers {
		keys = append(keys, plain(i, "p"))
	}
	create(t, s, keys...)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range each {
				if _, err := s.Change(t.Context(), keys[i].ID, record(auth.ActionUpdate), keep); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var seen []auth.ChangedKey
	known := uint64(0)
	for last := false; ; {
		c, err := s.Changes(t.Context(), known, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if c.Since != known {
			t.Fatalf("Changes(%d): since %d", known, c.Since)
		}
		seen, known = append(seen, c.Keys...), c.Latest
		if last {
			break
		}
		select {
		case <-done:
			last = true // once more, for what came in between
		default:
		}
	}
	if len(seen) != writers*each || known != writers*each {
		t.Fatalf("saw %d changes up to revision %d, want %d", len(seen), known, writers*each)
	}
	for i, c := range seen {
		if c.Revision != uint64(i+1) {
			t.Fatalf("change %d has revision %d", i, c.Revision)
		}
	}
	for i := range keys {
		if n := len(slices.DeleteFunc(slices.Clone(seen), func(c auth.ChangedKey) bool { return c.Digest != keys[i].Digest })); n != each {
			t.Errorf("key %d: %d changes seen, want %d", i, n, each)
		}
	}
}
