// Package storetest checks that an implementation of auth.Store does what the interface says. It is run on every
// implementation of this module, and is there for others.
package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/auth"
)

// Run runs all checks. open returns an empty store that nobody else uses, and closes it when the test ends.
func Run(t *testing.T, open func(t *testing.T) auth.Store) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*testing.T, auth.Store)
	}{
		{"create and read", createAndRead},
		{"create is all or nothing", createAllOrNothing},
		{"create many", createMany},
		{"nothing is there", nothingThere},
		{"change", change},
		{"change that fails", changeFails},
		{"change that adds", changeAdds},
		{"delete", remove},
		{"list", list},
		{"changes", changes},
		{"touch", touch},
		{"history", history},
		{"nothing is shared", nothingShared},
		{"concurrent changes of one key", concurrentChanges},
		{"revisions appear in order", revisionsInOrder},
		{"cancelled", cancelled},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

var at = time.Date(2026, 3, 4, 5, 6, 7, 890123000, time.UTC)

// key returns a key with every field set that a store has to keep.
func key(n int) auth.Key {
	return auth.Key{
		ID: fmt.Sprintf("key_%06d", n), Digest: auth.DigestOf(fmt.Sprint("secret ", n)), Display: "pl_live_Ab3d…",
		Project: "shop", Name: "naïve 名 \"quoted\" 'single' \\ %s",
		Scopes:   []string{"orders:read", "orders:write"},
		Metadata: map[string]string{"team": "checkout", "note": "line\nbreak 🙂", "": "empty key"},
		Limits:   map[string]auth.Limit{"api": {Limit: 1000, Period: time.Minute, Burst: 50}, "big": {Limit: 1 << 62, Period: time.Hour}},
		Disabled: true, CreatedAt: at, UpdatedAt: at.Add(time.Second), ExpiresAt: at.Add(time.Hour),
		LastUsedAt: at.Add(time.Minute), Replaces: "key_before", ReplacedBy: "key_after",
	}
}

// plain returns a key with only what it must have.
func plain(n int, project string) auth.Key {
	return auth.Key{
		ID: fmt.Sprintf("key_%06d", n), Digest: auth.DigestOf(fmt.Sprint("secret ", n)), Project: project,
		CreatedAt: at, UpdatedAt: at,
	}
}

func record(action string) auth.Record {
	return auth.Record{At: at.Add(time.Minute), Action: action, Actor: "ops", Detail: "because"}
}

func create(t *testing.T, s auth.Store, keys ...auth.Key) {
	t.Helper()
	if err := s.Create(t.Context(), keys, record(auth.ActionCreate)); err != nil {
		t.Fatalf("Create: %v", err)
	}
}

func get(t *testing.T, s auth.Store, id string) auth.Key {
	t.Helper()
	k, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatalf("Get(%s): %v", id, err)
	}
	return k
}

func same(t *testing.T, what string, got, want auth.Key) {
	t.Helper()
	if !slices.Equal(got.Scopes, want.Scopes) || !maps.Equal(got.Metadata, want.Metadata) || !maps.Equal(got.Limits, want.Limits) {
		t.Errorf("%s: scopes, metadata, limits\n got %q %q %v\nwant %q %q %v", what,
			got.Scopes, got.Metadata, got.Limits, want.Scopes, want.Metadata, want.Limits)
	}
	// Empty and nil are the same.
	got.Scopes, got.Metadata, got.Limits = nil, nil, nil
	want.Scopes, want.Metadata, want.Limits = nil, nil, nil
	if !reflect.DeepEqual(got, want) {
		// Key prints itself without its fields.
		type fields auth.Key
		t.Errorf("%s:\n got %+v\nwant %+v", what, fields(got), fields(want))
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, want %v", what, got, want)
	}
}

func createAndRead(t *testing.T, s auth.Store) {
	for n, want := range []auth.Key{key(0), plain(1, "p")} {
		create(t, s, want)
		same(t, fmt.Sprint("Get ", n), get(t, s, want.ID), want)
		got, err := s.Lookup(t.Context(), want.Digest)
		if err != nil {
			t.Fatalf("Lookup: %v", err)
		}
		same(t, fmt.Sprint("Lookup ", n), got, want)
	}
	c, err := s.Changes(t.Context(), 0, 10)
	if err != nil || c.Latest != 0 || c.Since != 0 || len(c.Keys) != 0 {
		t.Errorf("Changes after creations only: %+v, %v, want none", c, err)
	}
}

func createAllOrNothing(t *testing.T, s auth.Store) {
	create(t, s, plain(1, "p"))
	sameID, sameDigest := plain(2, "p"), plain(3, "p")
	sameID.ID, sameDigest.Digest = plain(1, "p").ID, plain(1, "p").Digest
	twice := plain(5, "p")
	twice.ID = "key_other"
	for name, second := range map[string]auth.Key{"ID": sameID, "digest": sameDigest, "digest within": twice} {
		err := s.Create(t.Context(), []auth.Key{plain(5, "p"), second}, record(auth.ActionCreate))
		wantErr(t, "Create with the same "+name, err, auth.ErrExists)
		_, err = s.Get(t.Context(), plain(5, "p").ID)
		wantErr(t, "Get of its neighbour, same "+name, err, auth.ErrNotFound)
	}
	if h, err := s.History(t.Context(), plain(5, "p").ID, 10); err != nil || len(h) != 0 {
		t.Errorf("History of a key that was not created: %v, %v", h, err)
	}
}

func createMany(t *testing.T, s auth.Store) {
	const n = 2500
	keys := make([]auth.Key, n)
	for i := range keys {
		keys[i] = plain(i, "p")
	}
	create(t, s, keys...)
	for _, i := range []int{0, 999, 1000, n - 1} {
		same(t, "Get", get(t, s, keys[i].ID), keys[i])
	}
	h, err := s.History(t.Context(), keys[n-1].ID, 10)
	if err != nil || len(h) != 1 || h[0].Action != auth.ActionCreate || h[0].Digest != keys[n-1].Digest {
		t.Errorf("History of the last: %+v, %v", h, err)
	}
}

func nothingThere(t *testing.T, s auth.Store) {
	ctx := t.Context()
	create(t, s, plain(1, "p")) // its neighbour
	_, err := s.Get(ctx, "key_000002")
	wantErr(t, "Get", err, auth.ErrNotFound)
	_, err = s.Get(ctx, "")
	wantErr(t, "Get of the empty ID", err, auth.ErrNotFound)
	_, err = s.Lookup(ctx, auth.DigestOf("other"))
	wantErr(t, "Lookup", err, auth.ErrNotFound)
	_, err = s.Lookup(ctx, auth.Digest{})
	wantErr(t, "Lookup of the zero digest", err, auth.ErrNotFound)
	_, err = s.Change(ctx, "key_000002", record(auth.ActionUpdate), func(*auth.Key) (*auth.Key, error) {
		t.Error("Change without a key: edit was called")
		return nil, nil
	})
	wantErr(t, "Change", err, auth.ErrNotFound)
	_, err = s.Delete(ctx, "key_000002", record(auth.ActionDelete))
	wantErr(t, "Delete", err, auth.ErrNotFound)
	if c, err := s.Changes(ctx, 0, 10); err != nil || c.Latest != 0 {
		t.Errorf("Changes: %+v, %v, want none", c, err)
	}
}

func change(t *testing.T, s auth.Store) {
	create(t, s, plain(1, "p"), plain(2, "p"))
	want := key(1)
	edit := func(k *auth.Key) (*auth.Key, error) {
		same(t, "what edit is given", *k, plain(1, "p"))
		*k = want
		return nil, nil
	}
	got, err := s.Change(t.Context(), want.ID, record(auth.ActionUpdate), edit)
	if err != nil {
		t.Fatal(err)
	}
	want.Revision = 1
	same(t, "Change", got, want)
	same(t, "Get", get(t, s, want.ID), want)
	same(t, "Get of another", get(t, s, plain(2, "p").ID), plain(2, "p"))

	// And back: every field can be emptied.
	got, err = s.Change(t.Context(), want.ID, record(auth.ActionUpdate), func(k *auth.Key) (*auth.Key, error) {
		*k = plain(1, "p")
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want = plain(1, "p")
	want.Revision = 2
	same(t, "Change back", got, want)
	same(t, "Get after the change back", get(t, s, want.ID), want)
}

func changeFails(t *testing.T, s auth.Store) {
	create(t, s, plain(1, "p"))
	refused := errors.New("refused")
	_, err := s.Change(t.Context(), plain(1, "p").ID, record(auth.ActionUpdate), func(k *auth.Key) (*auth.Key, error) {
		k.Disabled = true
		return nil, refused
	})
	if err != refused { //nolint:errorlint // as it is
		t.Errorf("Change: error %v, want edit's as it is", err)
	}
	same(t, "Get", get(t, s, plain(1, "p").ID), plain(1, "p"))
	if c, err := s.Changes(t.Context(), 0, 10); err != nil || c.Latest != 0 {
		t.Errorf("Changes: %+v, %v, want none", c, err)
	}
	if h, err := s.History(t.Context(), plain(1, "p").ID, 10); err != nil || len(h) != 1 {
		t.Errorf("History: %v, %v, want the creation only", h, err)
	}
}

func changeAdds(t *testing.T, s auth.Store) {
	create(t, s, plain(1, "p"))
	rotate := func(k *auth.Key) (*auth.Key, error) {
		k.ReplacedBy, k.ExpiresAt = plain(2, "p").ID, at
		next := key(2)
		return &next, nil
	}
	got, err := s.Change(t.Context(), plain(1, "p").ID, record(auth.ActionRotate), rotate)
	if err != nil {
		t.Fatal(err)
	}
	want := plain(1, "p")
	want.ReplacedBy, want.ExpiresAt, want.Revision = plain(2, "p").ID, at, 1
	same(t, "the changed", got, want)
	same(t, "the added", get(t, s, key(2).ID), key(2))
	h, err := s.History(t.Context(), key(2).ID, 10)
	if err != nil || len(h) != 1 || h[0].Action != auth.ActionCreate || h[0].Actor != "ops" || h[0].Revision != 0 {
		t.Errorf("History of the added: %+v, %v, want its creation", h, err)
	}
	// The same again finds the new key's place taken: nothing changes.
	_, err = s.Change(t.Context(), plain(1, "p").ID, record(auth.ActionRotate), func(k *auth.Key) (*auth.Key, error) {
		k.Disabled = true
		return rotate(k)
	})
	wantErr(t, "Change that adds what is there", err, auth.ErrExists)
	same(t, "the changed, after a failure", get(t, s, want.ID), want)
	if c, err := s.Changes(t.Context(), 0, 10); err != nil || c.Latest != 1 {
		t.Errorf("Changes: %+v, %v, want one", c, err)
	}
}

func remove(t *testing.T, s auth.Store) {
	ctx := t.Context()
	create(t, s, key(1), plain(2, "p"))
	got, err := s.Delete(ctx, key(1).ID, record(auth.ActionDelete))
	if err != nil {
		t.Fatal(err)
	}
	want := key(1)
	want.Revision = 1
	same(t, "Delete", got, want)
	_, err = s.Get(ctx, want.ID)
	wantErr(t, "Get", err, auth.ErrNotFound)
	_, err = s.Lookup(ctx, want.Digest)
	wantErr(t, "Lookup", err, auth.ErrNotFound)
	_, err = s.Delete(ctx, want.ID, record(auth.ActionDelete))
	wantErr(t, "Delete again", err, auth.ErrNotFound)
	same(t, "another", get(t, s, plain(2, "p").ID), plain(2, "p"))
	create(t, s, key(1)) // its places are free again
	same(t, "created again", get(t, s, key(1).ID), key(1))
}

func list(t *testing.T, s auth.Store) {
	ctx := t.Context()
	if keys, err := s.List(ctx, auth.Query{Limit: 10}); err != nil || len(keys) != 0 {
		t.Fatalf("List of nothing: %v, %v", keys, err)
	}
	const n = 250
	var all []auth.Key
	for i := range n {
		all = append(all, plain(i, [...]string{"a", "b", "B"}[i%3]))
	}
	order := slices.Clone(all)
	slices.SortFunc(order, func(x, y auth.Key) int { return slices.Compare(x.Digest[:], y.Digest[:]) })
	create(t, s, order...) // in any order
	for _, project := range []string{"", "a", "b", "B", "none"} {
		var want []string
		for _, k := range all {
			if project == "" || k.Project == project {
				want = append(want, k.ID)
			}
		}
		var got []string
		for after := ""; ; {
			keys, err := s.List(ctx, auth.Query{Project: project, After: after, Limit: 7})
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range keys {
				got = append(got, k.ID)
			}
			if len(keys) < 7 {
				break
			}
			after = keys[6].ID
		}
		if !slices.Equal(got, want) {
			t.Errorf("project %q: %d keys in pages, want %d, in order", project, len(got), len(want))
		}
	}
	keys, err := s.List(ctx, auth.Query{})
	if err != nil || len(keys) != auth.DefaultPage {
		t.Errorf("List without a limit: %d keys, %v, want %d", len(keys), err, auth.DefaultPage)
	}
	if len(keys) > 0 {
		same(t, "the first", keys[0], all[0])
	}
	if keys, err := s.List(ctx, auth.Query{After: "key_000004x", Limit: 1}); err != nil || len(keys) != 1 || keys[0].ID != "key_000005" {
		t.Errorf("List after an ID that is not there: %v, %v", keys, err)
	}
}

func changes(t *testing.T, s auth.Store) {
	ctx := t.Context()
	create(t, s, plain(1, "p"), plain(2, "p"), plain(3, "p"))
	touchAll := []int{1, 2, 1, 3}
	for _, n := range touchAll {
		if _, err := s.Change(ctx, plain(n, "p").ID, record(auth.ActionUpdate), keep); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Delete(ctx, plain(2, "p").ID, record(auth.ActionDelete)); err != nil {
		t.Fatal(err)
	}
	all := []auth.ChangedKey{}
	for i, n := range append(touchAll, 2) {
		all = append(all, auth.ChangedKey{Digest: plain(n, "p").Digest, Revision: uint64(i + 1)})
	}
	for _, test := range []struct {
		after        uint64
		limit        int
		since, first uint64
	}{
		{0, 10, 0, 1}, {0, 5, 0, 1}, {0, 4, 1, 2}, {0, 1, 4, 5}, {2, 10, 2, 3}, {2, 2, 3, 4}, {4, 10, 4, 5},
		{5, 10, 5, 6}, {7, 10, 5, 6}, // a store that is behind what was asked says so
	} {
		c, err := s.Changes(ctx, test.after, test.limit)
		want := all[test.first-1:]
		if err != nil || c.Latest != 5 || c.Since != test.since || !slices.Equal(c.Keys, want) {
			t.Errorf("Changes(%d, %d): latest %d, since %d, %v, %v\nwant 5, %d, %v",
				test.after, test.limit, c.Latest, c.Since, c.Keys, err, test.since, want)
		}
	}
}

func keep(*auth.Key) (*auth.Key, error) { return nil, nil }

func touch(t *testing.T, s auth.Store) {
	ctx := t.Context()
	create(t, s, plain(1, "p"), plain(2, "p"), plain(3, "p"))
	id := func(n int) string { return plain(n, "p").ID }
	for _, uses := range [][]auth.Use{
		{{ID: id(1), At: at.Add(time.Minute)}, {ID: id(2), At: at.Add(time.Hour)}, {ID: "key_gone", At: at}},
		{{ID: id(1), At: at.Add(time.Second)}, {ID: id(2), At: at.Add(2 * time.Hour)}}, // the first is older than what is there
		{},
	} {
		if err := s.Touch(ctx, uses); err != nil {
			t.Fatal(err)
		}
	}
	for n, want := range map[int]time.Time{1: at.Add(time.Minute), 2: at.Add(2 * time.Hour), 3: {}} {
		if got := get(t, s, id(n)); !got.LastUsedAt.Equal(want) || got.Revision != 0 || !got.UpdatedAt.Equal(at) {
			t.Errorf("key %d: last used %v, revision %d, want %v, 0", n, got.LastUsedAt, got.Revision, want)
		}
	}
	if c, err := s.Changes(ctx, 0, 10); err != nil || c.Latest != 0 {
		t.Errorf("Changes: %+v, %v, want none", c, err)
	}
}

func history(t *testing.T, s auth.Store) {
	ctx := t.Context()
	create(t, s, plain(1, "p"), plain(2, "p"))
	id, digest := plain(1, "p").ID, plain(1, "p").Digest
	update, last := record(auth.ActionUpdate), record(auth.ActionDelete)
	update.Actor, update.Detail, last.At = "", "", at.Add(time.Hour)
	if _, err := s.Change(ctx, id, update, keep); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Change(ctx, plain(2, "p").ID, record(auth.ActionDisable), keep); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(ctx, id, last); err != nil {
		t.Fatal(err)
	}
	want := []auth.Record{last, update, record(auth.ActionCreate)}
	for i := range want {
		want[i].KeyID, want[i].Digest, want[i].Revision = id, digest, []uint64{3, 1, 0}[i]
	}
	for limit := 1; limit <= 4; limit++ {
		got, err := s.History(ctx, id, limit)
		if w := want[:min(limit, 3)]; err != nil || !slices.Equal(got, w) {
			t.Errorf("History, limit %d: %v\n got %+v\nwant %+v", limit, err, got, w)
		}
	}
}

func nothingShared(t *testing.T, s auth.Store) {
	spoil := func(k auth.Key) {
		k.Scopes[0] = "spoilt"
		k.Metadata["team"] = "spoilt"
		k.Limits["api"] = auth.Limit{}
	}
	given := []auth.Key{key(1)}
	create(t, s, given...)
	spoil(given[0])
	same(t, "after spoiling what was given", get(t, s, key(1).ID), key(1))
	spoil(get(t, s, key(1).ID))
	same(t, "after spoiling what was returned", get(t, s, key(1).ID), key(1))
	var kept *auth.Key
	changed, err := s.Change(t.Context(), key(1).ID, record(auth.ActionUpdate), func(k *auth.Key) (*auth.Key, error) {
		kept = k
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	spoil(*kept)
	want := key(1)
	want.Revision = 1
	same(t, "after spoiling what edit was given", get(t, s, key(1).ID), want)
	if changed.Scopes[0] != "spoilt" {
		spoil(changed)
	}
	same(t, "after spoiling what Change returned", get(t, s, key(1).ID), want)
}

func cancelled(t *testing.T, s auth.Store) {
	if _, ok := s.(*auth.Memory); ok {
		t.Skip("the store in memory never waits for anything")
	}
	create(t, s, plain(1, "p"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Lookup(ctx, plain(1, "p").Digest); !errors.Is(err, context.Canceled) {
		t.Errorf("Lookup: error %v, want %v", err, context.Canceled)
	}
	if _, err := s.Lookup(ctx, auth.DigestOf("other")); err == nil || errors.Is(err, auth.ErrNotFound) {
		t.Errorf("Lookup of another: error %v; not to be asked is not to be unknown", err)
	}
	if _, err := s.Delete(ctx, plain(1, "p").ID, record(auth.ActionDelete)); !errors.Is(err, context.Canceled) {
		t.Errorf("Delete: error %v, want %v", err, context.Canceled)
	}
	same(t, "still there", get(t, s, plain(1, "p").ID), plain(1, "p"))
}

// RandomKeys returns n keys that nobody else has, for load and soak tests.
func RandomKeys(n int, project string) []auth.Key {
	keys := make([]auth.Key, n)
	for i := range keys {
		keys[i] = plain(i, project)
		keys[i].ID = "key_" + rand.Text()
		keys[i].Digest = auth.DigestOf(rand.Text())
	}
	return keys
}
