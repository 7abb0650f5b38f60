package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

func TestStoredPolicyComesBeforeTheCallers(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	mine := PerMinute("p", 10)
	l.AllowN(ctx, mine, "k", 4)
	r, err := l.PutPolicy(ctx, StoredPolicy{Policy: PerMinute("p", 6)})
	if err != nil || r.Reached != 1 || r.Members != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if d, _ := l.Status(ctx, mine, "k"); d.Limit != 6 || d.Remaining != 2 {
		t.Fatalf("what was used is kept: %+v", d)
	}
	if _, err := l.AllowN(ctx, mine, "k", 7); err == nil {
		t.Error("a cost above the stored limit")
	}
	if got, is := l.StoredPolicy("p"); !is || got.Policy.Limit != 6 {
		t.Errorf("%+v, %v", got, is)
	}
	if _, err := l.DeletePolicy(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	if d, _ := l.Status(ctx, mine, "k"); d.Limit != 10 || d.Remaining != 6 {
		t.Fatalf("after its deletion: %+v", d)
	}
	if _, err := l.DeletePolicy(ctx, "p"); !errors.Is(err, ErrNoPolicy) {
		t.Errorf("deleted twice: %v", err)
	}
	if _, is := l.StoredPolicy("p"); is || len(l.StoredPolicies()) != 0 {
		t.Error("it is listed after its deletion")
	}
	if _, err := l.PutPolicy(ctx, StoredPolicy{Policy: PerMinute("p", 3)}); err != nil {
		t.Fatal(err)
	}
	if d, _ := l.Status(ctx, mine, "k"); d.Limit != 3 {
		t.Fatalf("stored anew after its deletion: %+v", d)
	}
}

func TestOverrides(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	p := PerMinute("p", 10)
	limit := func(key string) int64 {
		t.Helper()
		d, err := l.Status(ctx, p, key)
		if err != nil {
			t.Fatal(err)
		}
		return d.Limit
	}
	for _, o := range []Override{{Key: "big", Times: 10}, {Key: "set", Limit: 3}, {Key: "free", Unlimited: true}, {Key: "huge", Times: MaxLimit}} {
		if _, err := l.SetOverride(ctx, "p", o); err != nil {
			t.Fatal(err)
		}
	}
	if a, b, c, d, e := limit("big"), limit("set"), limit("free"), limit("huge"), limit("other"); a != 100 || b != 3 || c != MaxLimit || d != MaxLimit || e != 10 {
		t.Fatalf("%d %d %d %d %d", a, b, c, d, e)
	}
	// Another limit for all: overrides stay.
	stored, _ := l.StoredPolicy("p")
	stored.Policy = PerMinute("p", 20)
	if _, err := l.PutPolicy(ctx, stored); err != nil {
		t.Fatal(err)
	}
	if a, b, e := limit("big"), limit("set"), limit("other"); a != 200 || b != 3 || e != 20 {
		t.Fatalf("%d %d %d", a, b, e)
	}
	if _, err := l.SetOverride(ctx, "p", Override{Key: "big", Times: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.DeleteOverride(ctx, "p", "set"); err != nil {
		t.Fatal(err)
	}
	if a, b := limit("big"), limit("set"); a != 40 || b != 20 {
		t.Fatalf("%d %d", a, b)
	}
	if _, err := l.DeleteOverride(ctx, "p", "set"); !errors.Is(err, ErrNoPolicy) {
		t.Errorf("%v", err)
	}
}

// A factor is for the burst too.
func TestOverridesOfBursts(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	p := PerMinute("p", 60)
	p.Burst = 5
	for key, o := range map[string]Override{
		"times":         {Times: 3},
		"limit":         {Limit: 100},
		"burst":         {Limit: 100, Burst: 7},
		"burst too big": {Limit: 1, Burst: 1e12}, // for the caller's period; it is left out
	} {
		o.Key = key
		if _, err := l.SetOverride(ctx, "p", o); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
	}
	for key, want := range map[string]int64{"times": 15, "limit": 100, "burst": 7, "burst too big": 1, "none": 5} {
		p := p
		if key == "burst too big" {
			p.Period = 24 * time.Hour
		}
		if d, err := l.StatusN(ctx, p, key, 0); err != nil || d.Remaining != want {
			t.Errorf("%s: %+v, %v; want %d", key, d, err, want)
		}
	}
}

func TestStoredFlagsAddToTheCallers(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	if _, err := l.PutPolicy(ctx, StoredPolicy{Policy: Policy{Name: "p", Shadow: true}}); err != nil {
		t.Fatal(err)
	}
	p := PerMinute("p", 1)
	l.Allow(ctx, p, "k")
	if d, _ := l.Allow(ctx, p, "k"); !d.Allowed || d.Reason != ReasonShadow || d.Limit != 1 {
		t.Fatalf("%+v", d)
	}
	if _, err := l.PutPolicy(ctx, StoredPolicy{Policy: Policy{Name: "p", Unlimited: true}}); err != nil {
		t.Fatal(err)
	}
	if d, _ := l.Allow(ctx, p, "k"); !d.Allowed || d.Reason != ReasonUnlimited {
		t.Fatalf("%+v", d)
	}
	// A concurrency policy and a rate are not replaced by one another.
	if _, err := l.PutPolicy(ctx, StoredPolicy{Policy: PerMinute("c", 1)}); err != nil {
		t.Fatal(err)
	}
	if _, d, err := l.Acquire(ctx, InFlight("c", 9, time.Second), "k"); err != nil || d.Limit != 9 {
		t.Fatalf("%+v, %v", d, err)
	}
}

func TestStoredPolicyBounds(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	many := make([]Override, MaxOverrides+1)
	for i := range many {
		many[i] = Override{Key: fmt.Sprint(i), Times: 1}
	}
	long := make([]Override, 600)
	for i := range long {
		long[i] = Override{Key: fmt.Sprint(i, strings.Repeat("x", 1000)), Times: 1}
	}
	p := PerMinute("p", 10)
	for _, c := range []struct {
		field string
		s     StoredPolicy
	}{
		{"policy", StoredPolicy{}},
		{"policy", StoredPolicy{Policy: Policy{Name: "a b", Shadow: true}}},
		{"period", StoredPolicy{Policy: Policy{Name: "p", Period: time.Second}}},
		{"burst", StoredPolicy{Policy: Policy{Name: "p", Burst: 1}}},
		{"algorithm", StoredPolicy{Policy: Policy{Name: "p", Algorithm: FixedWindow}}},
		{"timezone", StoredPolicy{Policy: Calendar("p", 1, Day, time.FixedZone("here", 3600))}},
		{"timezone", StoredPolicy{Policy: Calendar("p", 1, Day, time.Local)}},
		{"overrides", StoredPolicy{Policy: p, Overrides: many}},
		{"overrides", StoredPolicy{Policy: p, Overrides: long}},
		{"overrides", StoredPolicy{Policy: p, Overrides: []Override{{Key: "k"}}}},
		{"overrides", StoredPolicy{Policy: p, Overrides: []Override{{Key: "k", Times: 1, Limit: 1}}}},
		{"overrides", StoredPolicy{Policy: p, Overrides: []Override{{Key: "k", Times: 1}, {Key: "k", Times: 2}}}},
		{"overrides.key", StoredPolicy{Policy: p, Overrides: []Override{{Times: 1}}}},
		{"overrides.key", StoredPolicy{Policy: p, Overrides: []Override{{Key: "\xff", Times: 1}}}},
		{"overrides.times", StoredPolicy{Policy: p, Overrides: []Override{{Key: "k", Times: -1}}}},
		{"overrides.limit", StoredPolicy{Policy: InFlight("p", 1, time.Second), Overrides: []Override{{Key: "k", Limit: MaxPlaces + 1}}}},
		{"overrides.burst", StoredPolicy{Policy: p, Overrides: []Override{{Key: "k", Times: 2, Burst: 3}}}},
		{"overrides.burst", StoredPolicy{Policy: fixed(5, time.Minute), Overrides: []Override{{Key: "k", Limit: 2, Burst: 3}}}},
	} {
		_, err := l.PutPolicy(ctx, c.s)
		var f *FieldError
		if !errors.As(err, &f) || f.Field != c.field {
			t.Errorf("%s: %v", c.field, err)
		}
	}
	if len(l.StoredPolicies()) != 0 {
		t.Error("something was stored")
	}
	for _, name := range []string{"", "a b"} {
		_, del := l.DeletePolicy(ctx, name)
		_, set := l.SetOverride(ctx, name, Override{Key: "k", Times: 1})
		for _, err := range []error{del, set} {
			var f *FieldError
			if !errors.As(err, &f) {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
}

func TestLoadPoliciesLeavesRuntimeChangesAlone(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	file := []StoredPolicy{{Policy: PerMinute("a", 1)}, {Policy: PerMinute("b", 1)}}
	load := func() {
		t.Helper()
		if err := l.LoadPolicies(ctx, file); err != nil {
			t.Fatal(err)
		}
	}
	limits := func() (all []int64) {
		for _, s := range l.StoredPolicies() {
			all = append(all, s.Policy.Limit)
		}
		return all
	}
	load()
	if got := limits(); !reflect.DeepEqual(got, []int64{1, 1}) {
		t.Fatalf("%v", got)
	}
	if _, err := l.PutPolicy(ctx, StoredPolicy{Policy: PerMinute("b", 7)}); err != nil {
		t.Fatal(err)
	}
	file[0].Policy.Limit = 3
	load()
	if got := limits(); !reflect.DeepEqual(got, []int64{3, 7}) {
		t.Fatalf("%v: the file is new, the run-time change stays", got)
	}
	before := l.policies.known.Load().policies["a"].version
	load()
	if after := l.policies.known.Load().policies["a"].version; after != before {
		t.Errorf("the same file changed version %d to %d", before, after)
	}
	if err := l.LoadPolicies(ctx, []StoredPolicy{{Policy: PerMinute("a", 0), Overrides: []Override{{}}}}); err == nil {
		t.Error("accepted a bad policy")
	}
}

// memberCatalogues are the catalogues of several members over one table, and
// what reaches whom is in the test's hand.
func memberCatalogues(t testing.TB, n int) []*catalogue {
	t.Helper()
	table, err := cluster.NewTable[record, recordOp, recordResult](nil, recordMachine{}, cluster.TableConfig{Name: "policies"})
	if err != nil {
		t.Fatal(err)
	}
	all := make([]*catalogue, n)
	for i := range all {
		all[i] = &catalogue{table: table}
	}
	return all
}

func (c *catalogue) limit(name string) int64 {
	known := c.known.Load()
	if known == nil || known.policies[name] == nil || known.policies[name].deleted {
		return 0
	}
	return known.policies[name].stored.Policy.Limit
}

func putLimit(t *testing.T, c *catalogue, limit int64) {
	t.Helper()
	o, err := putOp(StoredPolicy{Policy: PerMinute("p", limit)})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.change(context.Background(), "p", o); err != nil || !r.done {
		t.Fatalf("%+v, %v", r, err)
	}
}

// A member that is told of changes late, or in the wrong order, ends with the
// last; one that is not told sees from the count that it has missed something.
func TestCatalogueCatchesUp(t *testing.T) {
	all := memberCatalogues(t, 3)
	writer, late, deaf := all[0], all[1], all[2]
	var delayed [][]byte
	writer.announce = func(_ context.Context, payload []byte) cluster.Receipt {
		if err := writer.receive(payload); err != nil {
			t.Error(err)
		}
		delayed = append(delayed, payload)
		return cluster.Receipt{Reached: 1, Members: 3}
	}
	ctx := context.Background()
	for limit := range int64(4) {
		putLimit(t, writer, limit+1)
	}
	for i := range delayed {
		if err := late.receive(delayed[len(delayed)-1-i]); err != nil {
			t.Fatal(err)
		}
		if got := late.limit("p"); got != 4 {
			t.Fatalf("told in reverse: limit %d after %d", got, i+1)
		}
	}
	if missed, err := writer.missed(ctx); missed || err != nil {
		t.Errorf("the writer missed something: %v", err)
	}
	if missed, err := deaf.missed(ctx); !missed || err != nil {
		t.Errorf("the deaf member missed nothing: %v", err)
	}
	if err := deaf.reload(ctx); err != nil || deaf.limit("p") != 4 {
		t.Errorf("after reading all: limit %d, %v", deaf.limit("p"), err)
	}
	if missed, _ := deaf.missed(ctx); missed {
		t.Error("it reads all again and again")
	}

	if r, err := writer.change(ctx, "p", recordOp{kind: recordDelete}); err != nil || !r.done {
		t.Fatal(err)
	}
	if err := late.receive(delayed[4]); err != nil || late.limit("p") != 0 {
		t.Errorf("deleted: limit %d, %v", late.limit("p"), err)
	}
	late.receive(delayed[3])
	if late.limit("p") != 0 {
		t.Error("a late announcement brought a deleted policy back")
	}
	if err := deaf.reload(ctx); err != nil || deaf.limit("p") != 0 {
		t.Errorf("deleted, not told: limit %d, %v", deaf.limit("p"), err)
	}
}

// What the members that kept it have lost is stored again by one that knows it.
func TestCatalogueRestores(t *testing.T) {
	old := memberCatalogues(t, 1)[0]
	old.announce = func(_ context.Context, payload []byte) cluster.Receipt {
		old.receive(payload)
		return cluster.Receipt{}
	}
	putLimit(t, old, 5)
	if err := old.reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	fresh := memberCatalogues(t, 2)
	survivor, other := fresh[0], fresh[1]
	survivor.known.Store(old.known.Load())
	survivor.count, survivor.read = old.count, time.Now()
	survivor.announce = func(_ context.Context, payload []byte) cluster.Receipt {
		other.receive(payload)
		return cluster.Receipt{}
	}
	if err := survivor.reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if survivor.limit("p") != 5 || other.limit("p") != 5 {
		t.Errorf("the survivor has %d, the other %d", survivor.limit("p"), other.limit("p"))
	}

	// One that was cut off for long may have missed the deletion.
	again := memberCatalogues(t, 1)[0]
	again.known.Store(old.known.Load())
	again.read = time.Now().Add(-time.Hour)
	if err := again.reload(context.Background()); err != nil || again.limit("p") != 0 {
		t.Errorf("cut off for an hour: limit %d, %v", again.limit("p"), err)
	}
}

// Changes at once: none is lost.
func TestOverridesAtOnce(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := l.SetOverride(ctx, "p", Override{Key: fmt.Sprint(i), Times: 2}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s, _ := l.StoredPolicy("p"); len(s.Overrides) != 8 {
		t.Errorf("%d of 8 overrides", len(s.Overrides))
	}
}

func TestRecordsTravel(t *testing.T) {
	m := recordMachine{}
	for _, s := range []record{{}, {version: 7, deleted: true}, {version: 1 << 31, fromFile: true, body: "{}"}} {
		if got, err := m.ParseState(m.AppendState(nil, s, 1), 2); err != nil || got != s {
			t.Errorf("%+v arrives as %+v, %v", s, got, err)
		}
		for _, done := range []bool{true, false} {
			r := recordResult{done, s}
			if got, err := m.ParseResult(m.AppendResult(nil, r)); err != nil || got != r {
				t.Errorf("%+v arrives as %+v, %v", r, got, err)
			}
		}
		o := recordOp{kind: recordPut, fromFile: s.fromFile, expected: s.deleted, version: s.version, body: s.body}
		if got, err := m.ParseOp(m.AppendOp(nil, o)); err != nil || got != o {
			t.Errorf("%+v arrives as %+v, %v", o, got, err)
		}
	}
	if _, err := m.ParseOp([]byte{9, 0, 0}); err == nil {
		t.Error("accepted an unknown operation")
	}
	if _, err := m.ParseState(make([]byte, maxRecord+9), 0); err == nil {
		t.Error("accepted too long a record")
	}
	a, b := record{version: 1, body: "a"}, record{version: 2, body: "b"}
	if m.Merge(a, b) != b || m.Merge(b, a) != b || m.Merge(record{}, a) != a {
		t.Error("the later version does not win")
	}
}

// Sent again, a change acts once.
func TestRecordsSentAgain(t *testing.T) {
	m := recordMachine{}
	call := cluster.Call{Now: 1, WallOffset: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()}
	s, r, _ := m.Apply(call, record{}, recordOp{kind: recordPut, expected: true, body: "a"})
	if !r.done || s.version == 0 {
		t.Fatalf("%+v", r)
	}
	call.Again = true
	again, r, e := m.Apply(call, s, recordOp{kind: recordPut, expected: true, body: "a"})
	if !r.done || again != s || !e.Wait {
		t.Errorf("a put, sent again: %+v %+v %+v", again, r, e)
	}
	gone, r, _ := m.Apply(call, s, recordOp{kind: recordDelete})
	twice, r2, e := m.Apply(call, gone, recordOp{kind: recordDelete})
	if !r.done || !r2.done || twice != gone || !e.Wait {
		t.Errorf("a delete, sent again: %+v %+v", twice, r2)
	}
	call.Again = false
	if _, r, _ := m.Apply(call, s, recordOp{kind: recordPut, expected: true, version: s.version + 1, body: "b"}); r.done {
		t.Error("put over a version that was not the expected one")
	}
}

func FuzzReceive(f *testing.F) {
	c := memberCatalogues(f, 1)[0]
	f.Add([]byte{1, 1, 'p', 0, 3, '{', '}'})
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = c.receive(b) // no panic, whatever comes
	})
}
