package auth

import (
	"slices"
	"testing"
	"time"
)

func TestViewForgetsSafely(t *testing.T) {
	v := newView()
	var s changelog
	s.read(v)
	v.readStore(Changes{})
	early := v.now()
	v.told(1, s.incarnation, 1, 1)
	if !v.changed(1, early.clock) || v.changed(2, early.clock) {
		t.Fatal("a mark concerns its key, and only it")
	}
	between := v.now()
	for i := range viewMarks {
		v.told(uint64(10+i), s.incarnation, uint64(2+i), uint64(2+i))
	}
	if len(v.marks) != viewMarks || len(v.ring) != viewMarks {
		t.Fatalf("%d marks in %d places, want %d", len(v.marks), len(v.ring), viewMarks)
	}
	if !v.changed(1, early.clock) {
		t.Error("a reading from before a forgotten mark counts as unchanged")
	}
	if v.changed(1, between.clock) {
		t.Error("a reading from after a forgotten mark counts as changed")
	}
	old := knowledge{incarnation: s.incarnation, position: 0, revision: 0}
	if v.vouches(1, old) {
		t.Error("a value from before a forgotten mark is vouched for")
	}
	if good := (knowledge{incarnation: s.incarnation, position: 1, revision: 1}); !v.vouches(1, good) {
		t.Error("a value from after a forgotten mark is not vouched for")
	}
	// A key that is marked again and again takes places in the ring, but is not forgotten with the first.
	for range viewMarks - 1 {
		v.told(5, s.incarnation, 1e6, 1e6)
	}
	if _, ok := v.marks[5]; !ok || len(v.ring) != viewMarks {
		t.Error("a mark was lost")
	}
}

func TestViewOfTheStore(t *testing.T) {
	d := func(s string) Digest { return DigestOf(s) }
	fp := func(s string) uint64 { x := d(s); return x.fingerprint() }
	v := newView()
	steps := []struct {
		name    string
		c       Changes
		changed []uint64
		all     bool
	}{
		{"first", Changes{Latest: 2, Since: 1, Keys: []ChangedKey{{d("a"), 2}}}, []uint64{fp("a")}, true},
		{"nothing new", Changes{Latest: 2, Since: 2}, nil, false},
		{"two", Changes{Latest: 4, Since: 2, Keys: []ChangedKey{{d("a"), 3}, {d("b"), 4}}}, []uint64{fp("a"), fp("b")}, false},
		{"more than it tells", Changes{Latest: 9, Since: 8, Keys: []ChangedKey{{d("c"), 9}}}, []uint64{fp("c")}, true},
		{"restored from a backup", Changes{Latest: 3, Since: 3}, nil, true},
		{"goes on from there", Changes{Latest: 4, Since: 3, Keys: []ChangedKey{{d("c"), 4}}}, []uint64{fp("c")}, false},
	}
	for _, s := range steps {
		before := v.now()
		changed, all := v.readStore(s.c)
		if !slices.Equal(changed, s.changed) || all != s.all {
			t.Errorf("%s: changed %v, all %v, want %v, %v", s.name, changed, all, s.changed, s.all)
		}
		if all && !v.changed(fp("somebody else"), before.clock) {
			t.Errorf("%s: all, and a reading from before counts as unchanged", s.name)
		}
		if v.since() != s.c.Latest {
			t.Errorf("%s: at revision %d, want %d", s.name, v.since(), s.c.Latest)
		}
	}
}

// What a broadcast told is not removed again when the records tell it: the key may have been read since.
func TestViewIsNotToldTwice(t *testing.T) {
	v := newView()
	var s changelog
	s.read(v)
	v.readStore(Changes{})
	d := DigestOf("a")
	s.publish(d.fingerprint())
	v.told(d.fingerprint(), s.incarnation, 1, 1)
	since := v.now()
	if changed, all := s.read(v); len(changed) != 0 || all {
		t.Errorf("the cluster's record told %v again", changed)
	}
	if changed, all := v.readStore(Changes{Latest: 1, Keys: []ChangedKey{{d, 1}}}); len(changed) != 0 || all {
		t.Errorf("the store told %v again", changed)
	}
	if v.changed(d.fingerprint(), since.clock) {
		t.Error("a reading from after the broadcast counts as changed")
	}
}

func TestConfirmation(t *testing.T) {
	at := func(s int) moment { return moment{int64(s) * int64(time.Second), int64(s) * int64(time.Second)} }
	now, whole := at(0), true
	c := &confirmation{now: func() moment { return now }, whole: func() bool { return whole }}
	since := func(want int) {
		t.Helper()
		switch m := c.load(); {
		case want < 0 && m != nil:
			t.Errorf("confirmed since %v, want not at all", *m)
		case want >= 0 && m == nil:
			t.Errorf("not confirmed, want since %d", want)
		case want >= 0 && *m != at(want):
			t.Errorf("confirmed since %v, want %d", *m, want)
		}
	}
	since(-1)
	c.tableRead(at(1))
	since(-1) // one witness is not enough
	c.storeRead(at(2))
	since(1)
	c.tableRead(at(3))
	since(2) // the older one counts
	if !c.storeFailed() || c.storeFailed() {
		t.Error("the first failure is the first")
	}
	since(3) // the record alone
	whole = false
	c.membersChanged()
	since(-1)
	now, whole = at(10), true
	c.membersChanged()
	since(-1) // it may still be one side's
	c.tableRead(at(10 + int(healFor/time.Second) - 1))
	since(-1)
	c.tableRead(at(10 + int(healFor/time.Second)))
	since(25)
	whole = false
	c.membersChanged()
	if !c.storeRead(at(26)) {
		t.Error("the store had failed")
	}
	since(25) // both: missing members don't matter
	if c.storeRead(at(26)) {
		t.Error("the store had not failed")
	}
	c.close()
	c.tableRead(at(27))
	since(-1)
}
