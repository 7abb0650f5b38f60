package auth

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/peerlimit/peerlimit/cluster"
	"pgregory.net/rapid"
)

// apply runs one operation.
func (s *changelog) apply(op changelogOp) changelogResult {
	var r changelogResult
	*s, r, _ = changelogMachine{}.Apply(cluster.Call{Now: 1}, *s, op)
	return r
}

func (s *changelog) publish(fingerprint uint64) {
	s.apply(changelogOp{publish: true, fingerprint: fingerprint, nonce: rand.Uint64()})
}

// read takes the record into a view.
func (s *changelog) read(v *view) (changed []uint64, all bool) {
	op := v.ask()
	op.nonce = rand.Uint64()
	return v.readTable(s.apply(op))
}

func TestChangelogEffects(t *testing.T) {
	var m changelogMachine
	call := cluster.Call{Now: 5}
	s, r, e := m.Apply(call, changelog{}, changelogOp{nonce: 7})
	if !e.Changed || !e.Wait || e.Expires <= call.Now || r.incarnation != 7 || !r.gap {
		t.Errorf("the first reading: %+v, %+v; want a new incarnation that waits for its copy", r, e)
	}
	_, r, e = m.Apply(call, s, changelogOp{nonce: 8, incarnation: 7})
	if e.Changed || e.Wait || e.Expires <= call.Now || r.incarnation != 7 || r.gap {
		t.Errorf("a reading: %+v, %+v; want nothing changed", r, e)
	}
	before := s
	s, r, e = m.Apply(call, s, changelogOp{publish: true, fingerprint: 9})
	if !e.Changed || !e.Wait || e.Expires <= call.Now || r.position != 1 || r.incarnation != 7 {
		t.Errorf("a change: %+v, %+v; want position 1 that waits for its copy", r, e)
	}
	if len(before.recent) != 0 || !slices.Equal(s.recent, []uint64{9}) {
		t.Errorf("recent %v before and %v after", before.recent, s.recent)
	}
}

// Two states that go on from one must not write into each other.
func TestChangelogIsNeverChangedInPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s changelog
		for range rapid.IntRange(0, 2*changelogSize).Draw(t, "before") {
			s.publish(1)
		}
		a, b := s, s
		want := slices.Clone(s.recent)
		a.publish(2)
		b.publish(3)
		if !slices.Equal(s.recent, want) || a.recent[len(a.recent)-1] != 2 || b.recent[len(b.recent)-1] != 3 {
			t.Fatal("a shared state was changed")
		}
		if len(a.recent) > changelogSize || a.position != s.position+1 {
			t.Fatalf("%d changes kept, position %d", len(a.recent), a.position)
		}
	})
}

// Whatever happens to the record, a reader that was told nothing is missing has heard of every change since its last
// reading.
func TestReaderMissesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var s changelog
		v := newView()
		s.read(v)
		var backup changelog // a copy that may lag behind
		missed := map[uint64]bool{}
		next := uint64(1)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1, 2, 3:
				for range rapid.SampledFrom([]int{1, 2, changelogSize - 1, changelogSize, changelogSize + 1}).Draw(t, "changes") {
					s.publish(next)
					missed[next] = true
					next++
				}
			case 4:
				backup = s
			case 5: // the holder died, the copy goes on
				s = backup
			case 6:
				s = changelog{}
			case 7: // a split: the other side goes on from the copy
				other := backup
				for range rapid.IntRange(0, 3).Draw(t, "other side") {
					other.publish(next)
					missed[next] = true
					next++
				}
				s = changelogMachine{}.Merge(s, other)
			default:
				known := v.now()
				changed, all := s.read(v)
				if all {
					clear(missed) // the reader knows nothing and has nothing cached
				}
				for _, f := range changed {
					delete(missed, f)
					if !v.changed(f, known.clock) {
						t.Fatalf("change of %d was returned and not marked", f)
					}
				}
				// What a lagging copy lost for good nobody can hear of; the store tells it.
				for f := range missed {
					if slices.Contains(s.recent, f) {
						t.Fatalf("the record has a change of %d and the reader has not heard of it", f)
					}
				}
				clear(missed)
			}
		}
	})
}

// A holder died with its last change not copied, and the position was given to another key.
func TestPositionGivenTwice(t *testing.T) {
	var s changelog
	v := newView()
	s.publish(1)
	s.read(v)
	backup := s
	s.publish(2)
	s.read(v)
	s = backup
	s.publish(3)
	if changed, all := s.read(v); !all || !slices.Contains(changed, 3) {
		t.Errorf("changed %v, all %v; want all, 3 among them", changed, all)
	}
	s.publish(4)
	if changed, all := s.read(v); all || !slices.Equal(changed, []uint64{4}) {
		t.Errorf("then changed %v, all %v; want 4", changed, all)
	}
}

func drawChangelog(t *rapid.T, name string) changelog {
	s := changelog{
		incarnation: rapid.Uint64Range(0, 3).Draw(t, name+" incarnation"),
		recent:      rapid.SliceOfN(rapid.Uint64Range(1, 3), 0, 5).Draw(t, name+" recent"),
	}
	if s.incarnation == 0 {
		return changelog{}
	}
	s.position = uint64(len(s.recent)) + rapid.Uint64Range(0, 2).Draw(t, name+" position")
	return s
}

func TestMergeChangelogs(t *testing.T) {
	var m changelogMachine
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawChangelog(t, "a"), drawChangelog(t, "b")
		ab, ba := m.Merge(a, b), m.Merge(b, a)
		if !reflect.DeepEqual(ab, ba) && !(ab.incarnation == ba.incarnation && ab.position == ba.position) {
			t.Fatalf("merged one way %+v, the other way %+v", ab, ba)
		}
		if aa := m.Merge(a, a); aa.incarnation != a.incarnation || aa.position != a.position {
			t.Fatalf("%+v merged with itself: %+v", a, aa)
		}
		// Who knew either side is told all of the other, or that it knows nothing.
		for _, side := range []struct{ own, other changelog }{{a, b}, {b, a}} {
			if side.own.incarnation == 0 {
				continue
			}
			v := newView()
			own := side.own
			own.read(v)
			merged := ab
			changed, all := merged.read(v)
			if all || side.other.incarnation == 0 {
				continue
			}
			if side.own.incarnation != side.other.incarnation {
				t.Fatal("two incarnations were merged unnoticed")
			}
			if missing := int(side.other.position) - int(side.own.position); missing > 0 && len(changed) < missing {
				// A key that was changed twice is one mark.
				tail := side.other.recent[len(side.other.recent)-missing:]
				for _, f := range tail {
					if !slices.Contains(changed, f) {
						t.Fatalf("changes %v of the other side, told %v", tail, changed)
					}
				}
			}
		}
	})
}

func TestChangelogCodec(t *testing.T) {
	var m changelogMachine
	rapid.Check(t, func(t *rapid.T) {
		s := drawChangelog(t, "s")
		if got, err := m.ParseState(m.AppendState(nil, s, 1), 2); err != nil || !equalChangelogs(got, s) {
			t.Fatalf("state %+v came back as %+v, %v", s, got, err)
		}
		op := changelogOp{
			publish: rapid.Bool().Draw(t, "publish"), fingerprint: rapid.Uint64().Draw(t, "fingerprint"),
			nonce: rapid.Uint64().Draw(t, "nonce"), incarnation: rapid.Uint64().Draw(t, "incarnation"),
			since: rapid.Uint64().Draw(t, "since"), last: rapid.Uint64().Draw(t, "last"),
		}
		if got, err := m.ParseOp(m.AppendOp(nil, op)); err != nil || got != op {
			t.Fatalf("operation %+v came back as %+v, %v", op, got, err)
		}
		r := s.apply(op)
		got, err := m.ParseResult(m.AppendResult(nil, r))
		if err != nil || got.incarnation != r.incarnation || got.position != r.position || got.from != r.from ||
			got.gap != r.gap || !slices.Equal(got.recent, r.recent) {
			t.Fatalf("result %+v came back as %+v, %v", r, got, err)
		}
	})
}

func equalChangelogs(a, b changelog) bool {
	return a.incarnation == b.incarnation && a.position == b.position && slices.Equal(a.recent, b.recent)
}

// What parses is written back as it was, and can be worked with.
func FuzzChangelog(f *testing.F) {
	var m changelogMachine
	s := changelog{7, 3, []uint64{1, 2}}
	f.Add(m.AppendState(nil, s, 0))
	f.Add(m.AppendOp(nil, changelogOp{publish: true, fingerprint: 1}))
	f.Add(m.AppendResult(nil, s.after(changelogOp{})))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := m.ParseState(b, 0); err == nil {
			if !bytes.Equal(m.AppendState(nil, s, 0), b) {
				t.Fatal("state changed")
			}
			s.apply(changelogOp{incarnation: s.incarnation, since: s.position, last: 1})
			s.publish(1)
			m.Merge(s, changelog{1, 1, []uint64{1}})
		}
		if op, err := m.ParseOp(b); err == nil {
			if !bytes.Equal(m.AppendOp(nil, op), b) {
				t.Fatal("operation changed")
			}
			s := changelog{op.incarnation, 3, []uint64{1, 2}}
			s.apply(op)
		}
		if r, err := m.ParseResult(b); err == nil {
			if !bytes.Equal(m.AppendResult(nil, r), b) {
				t.Fatal("result changed")
			}
			newView().readTable(r)
		}
	})
}

func FuzzAnnouncement(f *testing.F) {
	f.Add((&announcement{DigestOf("a"), 1, 2, 3}).encode())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseAnnouncement(b)
		if err == nil && !bytes.Equal(m.encode(), b) {
			t.Fatal("changed")
		}
	})
}
