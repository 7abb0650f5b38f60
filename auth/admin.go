package auth

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// Spec is what a new key is to carry. Only Project is required.
type Spec struct {
	Project  string
	Name     string
	Scopes   []string
	Metadata map[string]string
	Limits   map[string]Limit
	// ExpiresAt is the first instant at which the key is no longer valid; zero: it does not expire.
	ExpiresAt time.Time
	// Environment becomes part of a key that is made here; of an imported one it says nothing.
	Environment Environment
}

// Issued is a key as Create and Rotate return it.
type Issued struct {
	Key Key
	// Secret is the whole key, to be shown to its owner now: it is kept nowhere.
	Secret Secret
}

// Import is a key that was made elsewhere: itself or its SHA-256.
type Import struct {
	Spec
	// Key, where it is given, of 16 to 512 visible ASCII characters.
	Key Secret
	// Digest, where Key is not given.
	Digest Digest
	// Display is what to recognise the key by; default: a few characters of Key, or of Digest. At most 32 bytes.
	Display string
}

// Patch changes what is not nil.
type Patch struct {
	Name     *string
	Scopes   *[]string
	Metadata *map[string]string
	Limits   *map[string]Limit
	// ExpiresAt: the zero time removes the expiry.
	ExpiresAt *time.Time
}

// Page is a part of a list.
type Page struct {
	Keys []Key
	// Next is Query.After of the next page; empty: this was the last.
	Next string
}

// Rotated is what Rotate did.
type Rotated struct {
	Issued
	// Old is the replaced key as it now is.
	Old     Key
	Receipt Receipt
}

// clockSkew is how far a member's clock may be behind and still see a key expired that was rotated without grace.
const clockSkew = time.Minute

type actorKey struct{}

// WithActor returns a context whose changes are recorded as done by actor, cut to 128 bytes.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

func (a *Authenticator) record(ctx context.Context, action, detail string) Record {
	actor, _ := ctx.Value(actorKey{}).(string)
	actor = actor[:min(len(actor), MaxActor)]
	actor = strings.ToValidUTF8(strings.ReplaceAll(actor, "\x00", ""), "")
	return Record{At: a.now(), Action: action, Actor: actor, Detail: detail}
}

// now is the wall clock as stores keep it.
func (a *Authenticator) now() time.Time { return a.clock.now().UTC().Truncate(time.Microsecond) }

// Create makes a key. It is valid on every member when Create returns; nobody has to be told of it.
func (a *Authenticator) Create(ctx context.Context, s Spec) (Issued, error) {
	now := a.now()
	if err := s.check(now); err != nil {
		return Issued{}, err
	}
	secret := a.format.generate(s.Environment)
	k := s.key(now)
	k.Digest, k.Display = secret.Digest(), a.format.display(secret.Reveal())
	if err := a.store.Create(ctx, []Key{k.Clone()}, a.record(ctx, ActionCreate, "")); err != nil {
		return Issued{}, err
	}
	return Issued{k, secret}, nil
}

// Import takes in a key that was made elsewhere, by itself or by its digest, and makes every member forget that it
// was unknown. ErrExists where it is known already.
func (a *Authenticator) Import(ctx context.Context, in Import) (Key, Receipt, error) {
	began := a.clock.now()
	now := a.now()
	k := in.key(now)
	c := check{}
	c.spec(&in.Spec, now)
	c.text("prefix", in.Display, 0, 32)
	switch key := in.Key.Reveal(); {
	case key != "" && !in.Digest.IsZero():
		c.fail("key", "given beside sha256, want one of them")
	case key != "" && (len(key) < MinImportLength || len(key) > MaxKeyLength):
		c.fail("key", "%d bytes, want %d to %d", len(key), MinImportLength, MaxKeyLength)
	case key != "" && !a.format.wellFormed(key):
		c.fail("key", "has a character that is not visible ASCII, or this system's prefix without its checksum")
	case key != "":
		k.Digest, k.Display = DigestOf(key), a.format.display(key)
	case in.Digest.IsZero():
		c.fail("sha256", "missing, want it or the key")
	default:
		k.Digest, k.Display = in.Digest, "sha256:"+in.Digest.String()
	}
	if in.Display != "" {
		k.Display = in.Display
	}
	if err := c.err(); err != nil {
		return Key{}, Receipt{}, err
	}
	if err := a.store.Create(ctx, []Key{k.Clone()}, a.record(ctx, ActionImport, "")); err != nil {
		return Key{}, Receipt{}, err
	}
	receipt, err := a.announce(ctx, k.Digest, 0, began)
	return k, receipt, err
}

// Get returns the key with that ID, or ErrNotFound.
func (a *Authenticator) Get(ctx context.Context, id string) (Key, error) { return a.store.Get(ctx, id) }

// List returns a page of keys in the order in which they were made.
func (a *Authenticator) List(ctx context.Context, q Query) (Page, error) {
	if err := q.check(); err != nil {
		return Page{}, err
	}
	q.Limit = q.Size()
	keys, err := a.store.List(ctx, q)
	if err != nil {
		return Page{}, err
	}
	p := Page{Keys: keys}
	if len(keys) == q.Limit {
		p.Next = keys[len(keys)-1].ID
	}
	return p, nil
}

// History returns the latest records of a key, the newest first, at most limit (1 to 1,000).
func (a *Authenticator) History(ctx context.Context, id string, limit int) ([]Record, error) {
	if limit < 1 || limit > MaxPage {
		return nil, invalid("limit", "%d, want 1 to %d", limit, MaxPage)
	}
	return a.store.History(ctx, id, limit)
}

// Update changes what a key carries. Every member acts by it when Update returns; see Disable.
func (a *Authenticator) Update(ctx context.Context, id string, p Patch) (Key, Receipt, error) {
	now := a.now()
	if err := p.check(now); err != nil {
		return Key{}, Receipt{}, err
	}
	return a.change(ctx, id, ActionUpdate, p.detail(), func(k *Key) (*Key, error) {
		p.apply(k)
		return nil, nil
	})
}

// Disable makes a key refused everywhere, until Enable.
//
// When it returns without an error no member accepts the key. The receipt says which ones acknowledged; if one could
// not be reached, Disable has waited about a second longer, until whatever that member has cached can't be used
// unconfirmed any more. With ErrNotAnnounced, or ctx's error, the key is disabled in the store, and members that
// have it cached may accept it for up to a second.
func (a *Authenticator) Disable(ctx context.Context, id string) (Receipt, error) {
	_, r, err := a.change(ctx, id, ActionDisable, "", func(k *Key) (*Key, error) {
		k.Disabled = true
		return nil, nil
	})
	return r, err
}

// Enable undoes Disable.
func (a *Authenticator) Enable(ctx context.Context, id string) (Receipt, error) {
	_, r, err := a.change(ctx, id, ActionEnable, "", func(k *Key) (*Key, error) {
		k.Disabled = false
		return nil, nil
	})
	return r, err
}

// Delete removes a key for ever; its records stay. What is said of Disable holds. Deleting it a second time is
// ErrNotFound, also after ErrNotAnnounced.
func (a *Authenticator) Delete(ctx context.Context, id string) (Receipt, error) {
	began := a.clock.now()
	k, err := a.store.Delete(ctx, id, a.record(ctx, ActionDelete, ""))
	if err != nil {
		return Receipt{}, err
	}
	return a.announce(ctx, k.Digest, k.Revision, began)
}

// Rotate makes a new key with what the old one carries. The old one stays valid for grace (0 to 90 days, never longer
// than it would have been) and is Expired everywhere from then on, as exactly as the members' clocks agree; without
// grace at once. A key that is disabled or has expired can't be rotated, nor one that was rotated before: its
// successor can. If there is a secret in what is returned, the rotation is stored, whatever the error.
func (a *Authenticator) Rotate(ctx context.Context, id string, grace time.Duration) (Rotated, error) {
	if grace < 0 || grace > MaxGrace {
		return Rotated{}, invalid("grace", "%v, want 0 to %v", grace, MaxGrace)
	}
	now := a.now()
	var out Rotated
	old, receipt, err := a.change(ctx, id, ActionRotate, "grace "+grace.String(), func(k *Key) (*Key, error) {
		switch v := k.verdict(now); {
		case v != Valid:
			return nil, invalid("id", "the key is %v, want VALID", v)
		case k.ReplacedBy != "":
			return nil, invalid("id", "the key was replaced by %s", k.ReplacedBy)
		}
		env := Live
		if strings.HasPrefix(k.Display, a.format.test) {
			env = Test
		}
		out.Secret = a.format.generate(env)
		next := k.Clone()
		next.ID, next.Replaces, next.Revision = newID(now), k.ID, 0
		next.CreatedAt, next.UpdatedAt, next.LastUsedAt = now, now, time.Time{}
		next.Digest, next.Display = out.Secret.Digest(), a.format.display(out.Secret.Reveal())
		out.Key = next
		k.ReplacedBy = next.ID
		end := now.Add(grace)
		if grace == 0 {
			end = now.Add(-clockSkew) // at once also where the clock is behind
		}
		if k.ExpiresAt.IsZero() || end.Before(k.ExpiresAt) {
			k.ExpiresAt = end
		}
		add := next.Clone()
		return &add, nil
	})
	if old.ID == "" {
		return Rotated{}, err
	}
	out.Old, out.Receipt = old, receipt
	return out, err
}

// ClearCache makes every member forget what it has cached of a presented key, known or not.
func (a *Authenticator) ClearCache(ctx context.Context, key string) (Receipt, error) {
	return a.announce(ctx, DigestOf(key), 0, a.clock.now())
}

// change edits a key in the store and announces it. An error with a key means that the change is stored.
func (a *Authenticator) change(ctx context.Context, id, action, detail string, edit func(*Key) (*Key, error)) (Key, Receipt, error) {
	began := a.clock.now()
	r := a.record(ctx, action, detail)
	k, err := a.store.Change(ctx, id, r, func(k *Key) (*Key, error) {
		add, err := edit(k)
		k.UpdatedAt = r.At
		return add, err
	})
	if err != nil {
		return Key{}, Receipt{}, err
	}
	receipt, err := a.announce(ctx, k.Digest, k.Revision, began)
	return k, receipt, err
}

func (s *Spec) key(now time.Time) Key {
	k := Key{
		ID: newID(now), Project: s.Project, Name: s.Name, Scopes: slices.Clone(s.Scopes),
		Metadata: maps.Clone(s.Metadata), Limits: maps.Clone(s.Limits), CreatedAt: now, UpdatedAt: now,
	}
	if !s.ExpiresAt.IsZero() {
		k.ExpiresAt = s.ExpiresAt.UTC().Truncate(time.Microsecond)
	}
	return k
}

func (c *check) spec(s *Spec, now time.Time) {
	c.text("project", s.Project, 1, MaxProject)
	c.text("name", s.Name, 0, MaxName)
	c.scopes(s.Scopes)
	c.metadata(s.Metadata)
	c.limits(s.Limits)
	c.expiry(s.ExpiresAt, now)
	if s.Environment > Test {
		c.fail("environment", "%d, want Live or Test", s.Environment)
	}
}

func (s *Spec) check(now time.Time) error {
	var c check
	c.spec(s, now)
	return c.err()
}

func (p *Patch) check(now time.Time) error {
	var c check
	if p.Name != nil {
		c.text("name", *p.Name, 0, MaxName)
	}
	if p.Scopes != nil {
		c.scopes(*p.Scopes)
	}
	if p.Metadata != nil {
		c.metadata(*p.Metadata)
	}
	if p.Limits != nil {
		c.limits(*p.Limits)
	}
	if p.ExpiresAt != nil {
		c.expiry(*p.ExpiresAt, now)
	}
	if *p == (Patch{}) {
		c.fail("patch", "empty, want at least one field")
	}
	return c.err()
}

func (p *Patch) apply(k *Key) {
	if p.Name != nil {
		k.Name = *p.Name
	}
	if p.Scopes != nil {
		k.Scopes = slices.Clone(*p.Scopes)
	}
	if p.Metadata != nil {
		k.Metadata = maps.Clone(*p.Metadata)
	}
	if p.Limits != nil {
		k.Limits = maps.Clone(*p.Limits)
	}
	if p.ExpiresAt != nil {
		if k.ExpiresAt = p.ExpiresAt.UTC().Truncate(time.Microsecond); p.ExpiresAt.IsZero() {
			k.ExpiresAt = time.Time{}
		}
	}
}

// detail names the fields that are changed, not their values: metadata may be personal.
func (p *Patch) detail() string {
	var fields []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"name", p.Name != nil},
		{"scopes", p.Scopes != nil},
		{"metadata", p.Metadata != nil},
		{"limits", p.Limits != nil},
		{"expires_at", p.ExpiresAt != nil},
	} {
		if f.set {
			fields = append(fields, f.name)
		}
	}
	return strings.Join(fields, " ")
}
