package kv

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/olric-data/olric/pkg/storage"
)

// The model plays one partition of olric with the real engine: an owner, a
// backup, previous owners that still have something, members that come, leave
// and hand over, and die. Everything that takes a partition's lock in olric is
// one step here, and the order of steps is the seed's.
type model struct {
	rnd  *rand.Rand
	live []*modelMember // the first is the owner, the second the backup
	gone []*modelMember // have left and still hand over
	want map[string]modelKey
	next int
	log  []string
}

type modelMember struct {
	id              int
	engine          *engine
	primary, backup storage.Engine
	todo            []envelope // to be handed over
	left            time.Time
	table           []*modelMember // who was the owner, and the backup, when it left
}

// modelKey is what a key must hold: value, or nothing.
type modelKey struct {
	value   string
	written int64 // when it was last written or deleted, on the model's clock
}

func (m *model) join() {
	c := newClock()
	c.baseNano += m.rnd.Int64N(int64(10 * time.Second)) // clocks 5 s off either way
	for _, other := range m.live {
		// What a hello does, both ways.
		c.observe(other.engine.clock.now())
		other.engine.clock.observe(c.now())
	}
	g := newEngine(c, DefaultMaxBytes)
	root := &fork{root: g}
	primary, _ := root.Fork(nil)
	backup, _ := root.Fork(nil)
	m.next++
	nm := &modelMember{id: m.next, engine: g, primary: primary, backup: backup}
	// Anywhere in the order: it may be the new owner, who has nothing yet.
	i := m.rnd.IntN(len(m.live) + 1)
	m.live = slices.Insert(m.live, i, nm)
	m.logf("join %d at %d", nm.id, i)
}

func (m *model) logf(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

// offer is olric's syncPutOnCluster: to the backup, then here.
func (m *model) offer(e envelope) {
	owner := m.live[0]
	hkey := hashOf(string(e.key()))
	nt := owner.primary.NewEntry()
	nt.SetValue(e)
	encoded := nt.Encode()
	for _, b := range m.live[1:min(2, len(m.live))] {
		if err := b.backup.PutRaw(hkey, encoded); err != nil {
			panic(err)
		}
	}
	if err := owner.primary.Put(hkey, nt); err != nil {
		panic(err)
	}
}

// latest is olric's getOnCluster: the latest of the owner's, the previous
// owners' and the backups'.
func (m *model) latest(key string) envelope {
	var latest storage.Entry
	hkey := hashOf(key)
	for _, mm := range m.live {
		for _, f := range []storage.Engine{mm.primary, mm.backup} {
			e, err := f.Get(hkey)
			if err == nil && (latest == nil || e.Timestamp() > latest.Timestamp()) {
				latest = e
			}
		}
	}
	if latest == nil {
		return nil
	}
	return latest.Value()
}

func (m *model) read(key string) (string, bool) {
	e := m.latest(key)
	if !e.live(m.now()) {
		return "", false
	}
	return string(e.payload()), true
}

// move is olric's balancer: what is in a member's partition and belongs to
// another goes there in one piece, is merged, and then dropped here.
func (m *model) move(from *modelMember, src, dst storage.Engine) {
	it := src.TransferIterator()
	if !it.Next() {
		return
	}
	data, i, err := it.Export()
	if err != nil {
		return
	}
	err = dst.Import(data, func(hkey uint64, e storage.Entry) error {
		cur, err := dst.Get(hkey)
		if err == nil && cur.Timestamp() >= e.Timestamp() {
			return nil
		}
		return dst.Put(hkey, e)
	})
	if err != nil {
		panic(err)
	}
	if err := it.Drop(i); err != nil {
		panic(err)
	}
	m.logf("move from %d", from.id)
}

func (m *model) balance() {
	for i, mm := range m.live {
		if i != 0 {
			m.move(mm, mm.primary, m.live[0].primary)
		}
		if i != 1 && len(m.live) > 1 {
			m.move(mm, mm.backup, m.live[1].backup)
		}
	}
}

// handOver brings an entry of a leaver's to the others: as a write, or as part of a
// batch, to those who were its owner and its backup by the leaver's table and may
// be that no more.
func (m *model) handOver(mm *modelMember, e envelope) {
	if m.rnd.IntN(2) == 0 {
		m.offer(e)
		return
	}
	hkey := hashOf(string(e.key()))
	for i, to := range mm.table {
		if !slices.Contains(m.live, to) {
			m.offer(e)
			return
		}
		f := to.primary
		if i == 1 {
			f = to.backup
		}
		f.(*fork).shard.put(hkey, e.stored(e.version()))
	}
}

func (m *model) finishHandOver() {
	for _, mm := range m.gone {
		for _, e := range mm.todo {
			m.handOver(mm, e)
		}
	}
	m.gone = nil
}

// check reads every key.
func (m *model) check(seed uint64) error {
	for key, want := range m.want {
		got, ok := m.read(key)
		if ok != (want.value != "") || got != want.value {
			return fmt.Errorf("seed %d: %s holds %q, want %q\n%v", seed, key, got, want.value, m.log)
		}
	}
	return nil
}

func (m *model) now() int64 { return m.live[0].engine.clock.now() }

func runModel(seed uint64) error {
	m := &model{rnd: rand.New(rand.NewPCG(seed, 1)), want: make(map[string]modelKey)}
	m.join()
	m.join()
	type load struct {
		key   string
		since int64
		value string
	}
	var loads []load
	write := func(key, value string) {
		k, md := KindValue, modeWrite
		ttl := time.Hour
		if value == "" {
			k, ttl = KindTombstone, TombstoneTTL
		}
		m.offer(newEnvelope(md, k, 0, m.now()+int64(ttl), key, []byte(value)))
		m.want[key] = modelKey{value: value, written: m.now()}
	}
	for step := range 120 {
		time.Sleep(time.Millisecond)
		key := key(m.rnd.IntN(4))
		switch m.rnd.IntN(12) {
		case 0, 1:
			v := fmt.Sprint("v", step)
			write(key, v)
			m.logf("set %s %s", key, v)
		case 2, 3:
			write(key, "")
			m.logf("delete %s", key)
		case 4: // a load begins
			loads = append(loads, load{key, m.now(), fmt.Sprint("loaded", step)})
		case 5, 6: // one ends
			if len(loads) == 0 {
				break
			}
			i := m.rnd.IntN(len(loads))
			l := loads[i]
			loads = slices.Delete(loads, i, i+1)
			before, was := m.want[l.key]
			if !refuses(m.latest(l.key), l.key, l.since, m.now()) {
				m.offer(newEnvelope(modeFill, KindValue, l.since, m.now()+int64(time.Hour), l.key, []byte(l.value)))
			}
			got, _ := m.read(l.key)
			m.logf("fill %s %s: %s", l.key, l.value, got)
			switch {
			case was && before.written >= l.since:
				// It must have changed nothing, as check sees.
			case got == l.value:
				m.want[l.key] = modelKey{value: l.value, written: m.now()}
			}
		case 7:
			if len(m.live) < 4 {
				m.join()
			}
		case 8: // a graceful leave; the hand-over goes on in steps
			if len(m.live) < 3 || len(m.gone) > 0 {
				break // one at a time: with two, both copies of a key are under way
			}
			i := m.rnd.IntN(len(m.live))
			mm := m.live[i]
			m.live = slices.Delete(m.live, i, i+1)
			mm.engine.each(func(_ uint64, e envelope) { mm.todo = append(mm.todo, e) })
			m.rnd.Shuffle(len(mm.todo), func(i, j int) { mm.todo[i], mm.todo[j] = mm.todo[j], mm.todo[i] })
			mm.left, mm.table = time.Now(), slices.Clone(m.live[:2])
			m.gone = append(m.gone, mm)
			m.logf("leave %d with %d", mm.id, len(mm.todo))
		case 9: // a step of a hand-over
			if len(m.gone) > 0 && len(m.gone[0].todo) > 0 {
				mm := m.gone[0]
				m.handOver(mm, mm.todo[0])
				mm.todo = mm.todo[1:]
				if len(mm.todo) == 0 {
					m.gone = m.gone[1:]
				}
			}
		case 10:
			m.balance()
		case 11:
			// Both take seconds, tombstones live for a minute.
			m.finishHandOver()
			m.balance()
			time.Sleep(time.Duration(m.rnd.Int64N(int64(20 * time.Second))))
		}
		if m.rnd.IntN(8) == 0 || len(m.gone) > 0 && time.Since(m.gone[0].left) > 5*time.Second {
			m.finishHandOver()
		}
		// While something is being handed over a key may be missing, but never
		// be an older one.
		if len(m.gone) == 0 {
			if err := m.check(seed); err != nil {
				return err
			}
			continue
		}
		for key, want := range m.want {
			if got, ok := m.read(key); ok && got != want.value {
				return fmt.Errorf("seed %d: %s holds %q, want %q\n%v", seed, key, got, want.value, m.log)
			}
		}
	}
	return nil
}

// A deleted key stays deleted through leave and hand-over, and no key ever
// holds an older value, in 1,000 seeded runs.
func TestDeletedStaysDeleted(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1000) {
		synctest.Test(t, func(t *testing.T) {
			if err := runModel(seed); err != nil {
				t.Fatal(err)
			}
		})
	}
}
