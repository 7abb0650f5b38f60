package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRotateWithGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 3)
		old, oldKey := ms[0].create(t, Spec{
			Name: "ci", Scopes: []string{"s"}, Metadata: map[string]string{"a": "b"}, Environment: Test,
			Limits: map[string]Limit{"api": {Limit: 1, Period: time.Second}},
		})
		for _, m := range ms {
			m.verify(t, oldKey, Valid)
		}
		r, err := ms[1].Rotate(t.Context(), old.ID, time.Hour)
		if err != nil || r.Receipt.Reached != 3 {
			t.Fatalf("%+v, %v", r.Receipt, err)
		}
		newKey := r.Secret.Reveal()
		if r.Old.ReplacedBy != r.Key.ID || r.Key.Replaces != old.ID || !strings.HasPrefix(newKey, "pl_test_") ||
			r.Key.Project != old.Project || r.Key.Name != "ci" || !r.Key.ExpiresAt.IsZero() || r.Key.Metadata["a"] != "b" {
			t.Errorf("old %+v, new %+v", r.Old, r.Key)
		}
		both := func(want Verdict) {
			t.Helper()
			for _, m := range ms {
				m.verify(t, oldKey, want)
				if p := m.verify(t, newKey, Valid).Principal; !p.Has("s") || p.ID != r.Key.ID || p.Limits["api"].Limit != 1 {
					t.Errorf("principal %v", p)
				}
			}
		}
		both(Valid)
		time.Sleep(time.Until(r.Old.ExpiresAt) - 1)
		both(Valid)
		time.Sleep(time.Nanosecond)
		both(Expired)

		if _, err := ms[0].Rotate(t.Context(), old.ID, 0); !isInvalid(err, "id") {
			t.Errorf("rotating an expired key: %v", err)
		}
		// Without grace the old one is refused at once, also by a member whose clock is behind.
		next, err := ms[2].Rotate(t.Context(), r.Key.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			m.verify(t, newKey, Expired)
			m.verify(t, next.Secret.Reveal(), Valid)
		}
		if next.Old.verdict(time.Now().Add(-30*time.Second)) != Expired {
			t.Error("valid for a member whose clock is 30 s behind")
		}
	})
}

func TestRotateNeverLengthens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		expires := time.Now().Add(time.Minute)
		k, _ := m.create(t, Spec{ExpiresAt: expires})
		r, err := m.Rotate(t.Context(), k.ID, time.Hour)
		if err != nil || !r.Old.ExpiresAt.Equal(expires) || !r.Key.ExpiresAt.Equal(expires) {
			t.Errorf("old until %v, new until %v, %v, want %v", r.Old.ExpiresAt, r.Key.ExpiresAt, err, expires)
		}
		if _, err := m.Rotate(t.Context(), k.ID, time.Second); !isInvalid(err, "id") {
			t.Errorf("rotating a key that was replaced: %v", err)
		}
		mustReceipt(t)(m.Disable(t.Context(), r.Key.ID))
		if _, err := m.Rotate(t.Context(), r.Key.ID, time.Second); !isInvalid(err, "id") {
			t.Errorf("rotating a disabled key: %v", err)
		}
		for _, grace := range []time.Duration{-1, MaxGrace + 1} {
			if _, err := m.Rotate(t.Context(), k.ID, grace); !isInvalid(err, "grace") {
				t.Errorf("grace %v: %v", grace, err)
			}
		}
	})
}

func isInvalid(err error, field string) bool {
	var e *InvalidError
	return errors.As(err, &e) && slices.ContainsFunc(e.Fields, func(f FieldError) bool { return f.Field == field && f.Detail != "" })
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		long := func(n int) string { return strings.Repeat("x", n) }
		many := func(n int) []string {
			var s []string
			for i := range n {
				s = append(s, fmt.Sprint("s", i))
			}
			return s
		}
		entries := func(n, size int) map[string]string {
			out := map[string]string{}
			for i := range n {
				out[fmt.Sprintf("k%02d", i)] = long(size)
			}
			return out
		}
		limit := func(l Limit) map[string]Limit { return map[string]Limit{"api": l} }
		limits := func(n int) map[string]Limit {
			out := map[string]Limit{}
			for i := range n {
				out[fmt.Sprint("p", i)] = Limit{1, time.Second, 0}
			}
			return out
		}
		now := time.Now()
		for field, specs := range map[string][]Spec{
			"": {
				{Project: "p"}, {Project: long(MaxProject), Name: long(MaxName)}, {Project: "naïve 名"},
				{Project: "p", Scopes: many(MaxScopes)}, {Project: "p", Scopes: []string{long(MaxScope), "a:b/c.*[]"}},
				{Project: "p", Metadata: entries(MaxMetadata, 125)}, {Project: "p", Metadata: map[string]string{"k": "line\nbreak"}},
				{Project: "p", Limits: limits(MaxLimits)}, {Project: "p", ExpiresAt: now.Add(time.Millisecond)},
			},
			"project":           {{}, {Project: long(MaxProject + 1)}, {Project: "a\x00b"}, {Project: "a\nb"}, {Project: "\xff"}},
			"name":              {{Project: "p", Name: long(MaxName + 1)}, {Project: "p", Name: "\x7f"}},
			"scopes":            {{Project: "p", Scopes: many(MaxScopes + 1)}},
			"scopes[0]":         {{Project: "p", Scopes: []string{""}}, {Project: "p", Scopes: []string{long(MaxScope + 1)}}, {Project: "p", Scopes: []string{`a"b`}}, {Project: "p", Scopes: []string{"a b"}}, {Project: "p", Scopes: []string{"ä"}}},
			"scopes[1]":         {{Project: "p", Scopes: []string{"a", "a"}}},
			"metadata":          {{Project: "p", Metadata: entries(MaxMetadata+1, 1)}, {Project: "p", Metadata: entries(MaxMetadata, 126)}, {Project: "p", Metadata: map[string]string{long(MaxMetadataKey + 1): ""}}, {Project: "p", Metadata: map[string]string{"k": "\x00"}}, {Project: "p", Metadata: map[string]string{"": "v"}}},
			"limits":            {{Project: "p", Limits: limits(MaxLimits + 1)}, {Project: "p", Limits: map[string]Limit{"": {1, time.Second, 0}}}},
			"limits.api.limit":  {{Project: "p", Limits: limit(Limit{0, time.Second, 0})}},
			"limits.api.period": {{Project: "p", Limits: limit(Limit{1, time.Microsecond, 0})}},
			"limits.api.burst":  {{Project: "p", Limits: limit(Limit{1, time.Second, -1})}},
			"expires_at":        {{Project: "p", ExpiresAt: now}, {Project: "p", ExpiresAt: now.Add(-1)}, {Project: "p", ExpiresAt: now.Add(MaxLifetime + time.Hour)}},
			"environment":       {{Project: "p", Environment: 2}},
		} {
			for i, s := range specs {
				issued, err := m.Create(t.Context(), s)
				switch {
				case field == "" && err != nil:
					t.Errorf("good spec %d: %v", i, err)
				case field != "" && !isInvalid(err, field):
					t.Errorf("%s %d: error %v", field, i, err)
				}
				if field == "" && newEntry(&issued.Key, moment{}, 1, 1).cost > (2<<20)/nearShards {
					t.Errorf("good spec %d: too large for the smallest cache", i)
				}
			}
		}
		var invalid *InvalidError
		_, err := m.Create(t.Context(), Spec{Name: "\x00", Scopes: []string{""}})
		if !errors.As(err, &invalid) || len(invalid.Fields) != 3 {
			t.Errorf("three wrong fields: %v", err)
		}
	})
}

func TestImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		ours := m.format.generate(Live).Reveal()
		spec := Spec{Project: "p"}
		for field, in := range map[string]Import{
			"key":     {Spec: spec, Key: NewSecret("short")},
			"key ":    {Spec: spec, Key: NewSecret("with space 0123456789")},
			"key  ":   {Spec: spec, Key: NewSecret(ours[:len(ours)-1])},
			"key   ":  {Spec: spec, Key: NewSecret(strings.Repeat("x", MaxKeyLength+1))},
			"key    ": {Spec: spec, Key: NewSecret("0123456789abcdef"), Digest: DigestOf("x")},
			"sha256":  {Spec: spec},
			"prefix":  {Spec: spec, Digest: DigestOf("x"), Display: strings.Repeat("x", 33)},
			"project": {Digest: DigestOf("x")},
		} {
			if _, _, err := m.Import(t.Context(), in); !isInvalid(err, strings.TrimSpace(field)) {
				t.Errorf("%s: error %v", field, err)
			}
		}
		byKey, _, err := m.Import(t.Context(), Import{Spec: spec, Key: NewSecret("imported-by-itself-01")})
		if err != nil || byKey.Display != "im…" {
			t.Errorf("by key: %v, %v", byKey, err)
		}
		byDigest, _, err := m.Import(t.Context(), Import{Spec: spec, Digest: DigestOf("imported-by-its-digest")})
		if err != nil || !strings.HasPrefix(byDigest.Display, "sha256:") {
			t.Errorf("by digest: %v, %v", byDigest, err)
		}
		own, _, err := m.Import(t.Context(), Import{Spec: spec, Key: NewSecret(ours), Display: "moved"})
		if err != nil || own.Display != "moved" {
			t.Errorf("a key of ours: %v, %v", own, err)
		}
		m.verify(t, "imported-by-itself-01", Valid)
		m.verify(t, "imported-by-its-digest", Valid)
		m.verify(t, ours, Valid)
		if _, _, err := m.Import(t.Context(), Import{Spec: spec, Digest: DigestOf(ours)}); !errors.Is(err, ErrExists) {
			t.Errorf("the same again: %v", err)
		}
	})
}

func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 2)
		m := ms[0]
		k, key := m.create(t, Spec{Name: "old", Scopes: []string{"a"}, ExpiresAt: time.Now().Add(time.Hour)})
		ms[1].verify(t, key, Valid)
		name, scopes, never := "new", []string{"b", "c"}, time.Time{}
		meta, limits := map[string]string{"x": "y"}, map[string]Limit{"api": {1, time.Second, 0}}
		got, r, err := m.Update(t.Context(), k.ID, Patch{Name: &name, Scopes: &scopes, Metadata: &meta, Limits: &limits, ExpiresAt: &never})
		if err != nil || r.Reached != 2 || got.Name != "new" || !got.ExpiresAt.IsZero() || got.Revision != 1 {
			t.Fatalf("%+v, %+v, %v", got, r, err)
		}
		p := ms[1].verify(t, key, Valid).Principal
		if p.Has("a") || !p.Has("b", "c") || p.Metadata["x"] != "y" || p.Limits["api"].Limit != 1 || !p.ExpiresAt.IsZero() {
			t.Errorf("principal %v %v", p, p.Scopes)
		}
		past := time.Now()
		bad := map[string]Patch{"patch": {}, "expires_at": {ExpiresAt: &past}}
		for field, patch := range bad {
			if _, _, err := m.Update(t.Context(), k.ID, patch); !isInvalid(err, field) {
				t.Errorf("%s: %v", field, err)
			}
		}
		h, err := m.History(WithActor(t.Context(), "nobody"), k.ID, 10)
		if err != nil || len(h) != 2 || h[0].Detail != "name scopes metadata limits expires_at" {
			t.Errorf("history %+v, %v", h, err)
		}
	})
}

func TestAuditTrail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		ctx := WithActor(t.Context(), "alice\x00\xff"+strings.Repeat("é", 100))
		issued, err := m.Create(ctx, Spec{Project: "p"})
		if err != nil {
			t.Fatal(err)
		}
		id := issued.Key.ID
		mustReceipt(t)(m.Disable(ctx, id))
		mustReceipt(t)(m.Enable(ctx, id))
		r, err := m.Rotate(ctx, id, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		mustReceipt(t)(m.Delete(ctx, id))
		h, err := m.History(ctx, id, 10)
		if err != nil {
			t.Fatal(err)
		}
		var actions []string
		for _, rec := range h {
			actions = append(actions, rec.Action)
			if !strings.HasPrefix(rec.Actor, "aliceéé") || len(rec.Actor) > MaxActor || rec.Digest != issued.Key.Digest || rec.At.IsZero() {
				t.Errorf("record %+v", rec)
			}
		}
		if want := []string{ActionDelete, ActionRotate, ActionEnable, ActionDisable, ActionCreate}; !slices.Equal(actions, want) {
			t.Errorf("actions %v, want %v", actions, want)
		}
		if h, err := m.History(ctx, r.Key.ID, 10); err != nil || len(h) != 1 || h[0].Detail != "replaces "+id {
			t.Errorf("the new key's: %+v, %v", h, err)
		}
		for _, limit := range []int{0, MaxPage + 1} {
			if _, err := m.History(ctx, id, limit); !isInvalid(err, "limit") {
				t.Errorf("limit %d: %v", limit, err)
			}
		}
	})
}

func TestNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		name := "n"
		for what, do := range map[string]func() error{
			"get":     func() error { _, err := m.Get(t.Context(), "key_none"); return err },
			"update":  func() error { _, _, err := m.Update(t.Context(), "key_none", Patch{Name: &name}); return err },
			"disable": func() error { _, err := m.Disable(t.Context(), "key_none"); return err },
			"enable":  func() error { _, err := m.Enable(t.Context(), "key_none"); return err },
			"delete":  func() error { _, err := m.Delete(t.Context(), "key_none"); return err },
			"rotate":  func() error { _, err := m.Rotate(t.Context(), "key_none", 0); return err },
		} {
			if err := do(); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: error %v, want %v", what, err, ErrNotFound)
			}
		}
	})
}

func TestListPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		var want []string
		for i := range 25 {
			k, _ := m.create(t, Spec{Project: [...]string{"a", "b"}[i%2]})
			want = append(want, k.ID)
			time.Sleep(time.Millisecond)
		}
		var got []string
		for q := (Query{Limit: 10}); ; {
			page, err := m.List(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range page.Keys {
				got = append(got, k.ID)
			}
			if q.After = page.Next; q.After == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages had %v, want %v", got, want)
		}
		if page, err := m.List(t.Context(), Query{Project: "b"}); err != nil || len(page.Keys) != 12 || page.Next != "" {
			t.Errorf("project b: %d keys, next %q, %v", len(page.Keys), page.Next, err)
		}
		for field, q := range map[string]Query{"limit": {Limit: -1}, "limit ": {Limit: MaxPage + 1}, "project": {Project: "\x00"}, "after": {After: "\xff"}} {
			if _, err := m.List(t.Context(), q); !isInvalid(err, strings.TrimSpace(field)) {
				t.Errorf("%s: %v", field, err)
			}
		}
	})
}

func TestClearCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 2)
		_, key := ms[0].create(t, Spec{})
		for _, m := range ms {
			m.verify(t, key, Valid)
			m.verifyFrom(t, key, Valid, FromNear)
			m.verify(t, "unknown-to-all", NotFound)
		}
		if r := mustReceipt(t)(ms[0].ClearCache(t.Context(), key)); r.Reached != 2 {
			t.Errorf("receipt %+v", r)
		}
		for _, m := range ms {
			if s := m.CacheStats(); s.Known != 0 || s.Unknown != 1 {
				t.Errorf("cache stats %+v", s)
			}
			m.verifyFrom(t, key, Valid, FromStore)
		}
	})
}

func TestLastUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1, func(c *Config) { c.LastUsedEvery = time.Minute })
		m := ms[0]
		k, key := m.create(t, Spec{})
		unused, _ := m.create(t, Spec{})
		lastUsed := func(id string) time.Time {
			k, err := m.Get(context.Background(), id)
			if err != nil {
				t.Fatal(err)
			}
			return k.LastUsedAt
		}
		m.verify(t, key, Valid)
		first := time.Now()
		if at := lastUsed(k.ID); !at.IsZero() {
			t.Errorf("written at once: %v", at)
		}
		for range 100 {
			m.verify(t, key, Valid)
			time.Sleep(time.Second)
		}
		if at := lastUsed(k.ID); at.Before(first) || at.After(first.Add(time.Minute)) {
			t.Errorf("last used %v, want within a minute of %v", at, first)
		}
		// The store is down when it is to be written, and back later: nothing is lost.
		m.store.down.Store(true)
		m.verify(t, key, Valid)
		time.Sleep(2 * time.Minute)
		m.store.down.Store(false)
		m.verify(t, key, Valid)
		last := time.Now()
		if err := m.Close(); err != nil { // writes what is outstanding
			t.Fatal(err)
		}
		if at := lastUsed(k.ID); last.Sub(at) > time.Minute {
			t.Errorf("last used %v, want within a minute of %v", at, last)
		}
		if at := lastUsed(unused.ID); !at.IsZero() {
			t.Errorf("never used, and last used %v", at)
		}
	})
}

func TestConfigIsRefused(t *testing.T) {
	store := NewMemory()
	for field, cfg := range map[string]Config{
		"Store":         {},
		"Namespace":     {Store: store, Namespace: "UPPER"},
		"Prefix":        {Store: store, Prefix: "P"},
		"PositiveTTL":   {Store: store, PositiveTTL: 25 * time.Hour},
		"NegativeTTL":   {Store: store, NegativeTTL: time.Nanosecond},
		"StaleTTL":      {Store: store, StaleTTL: -2},
		"StoreTimeout":  {Store: store, StoreTimeout: time.Hour},
		"LastUsedEvery": {Store: store, LastUsedEvery: time.Millisecond},
		"NearBytes":     {Store: store, NearBytes: 1},
		"NearUnknown":   {Store: store, NearUnknown: 1},
		"StoreCalls":    {Store: store, StoreCalls: -1},
	} {
		a, err := New(cfg)
		if err == nil {
			_ = a.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("%s: error %v, want one that names it", field, err)
		}
	}
}
