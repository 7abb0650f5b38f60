package sim

import (
	"flag"
	"fmt"
	"runtime/debug"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/possess"
	"github.com/peerlimit/peerlimit/cluster/internal/ring"
	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

var costMembers = flag.Int("sim.cost", 0, "measure what a ring change costs with so many members")

// entryBytes is what an entry of a limit with a key of 20 bytes takes on the
// wire, entriesPerSlot how many a slot has: 10 make 163,840 in all.
const (
	entryBytes     = 64
	entriesPerSlot = 10
)

// fleet is many machines with all slots, on a network that takes 1 ms and
// counts.
type fleet struct {
	now      int64
	events   queue
	seq      uint64
	machines map[possess.ID]*possess.Machine
	ids      []possess.ID
	messages map[string]int
	bytes    map[string]int
	moved    int
}

// costPort holds no entries, only how many bytes of them are to be sent.
type costPort struct {
	f    *fleet
	id   possess.ID
	owed map[uint16]*[2]int
}

func (p *costPort) Send(to possess.ID, m possess.Message) {
	b := possess.Append(nil, m)
	kind := fmt.Sprintf("%T", m)[len("*possess."):]
	p.f.messages[kind]++
	p.f.bytes[kind] += len(b) + 36 // a frame's header
	p.f.seq++
	p.f.events.push(event{p.f.now + ms, p.f.seq, nil, func() {
		if got, err := possess.Parse(b); err != nil {
			panic(err)
		} else if dst := p.f.machines[to]; dst != nil {
			dst.Receive(p.f.now, p.id, got)
		}
	}})
}

func (p *costPort) Open(uint16, uint64, *store.Grant)        {}
func (p *costPort) Shut(uint16)                              {}
func (p *costPort) Wake(uint16)                              {}
func (p *costPort) TakeMarks(func(uint16))                   {}
func (p *costPort) Acked(uint16, store.List)                 {}
func (p *costPort) Owes(uint16) (bool, bool)                 { return false, false }
func (p *costPort) Unfollow(uint16, store.List, bool)        {}
func (p *costPort) Drop(uint16)                              {}
func (p *costPort) Import(uint16, []byte, int64, bool) error { return nil }
func (p *costPort) Promote(uint16)                           {}
func (p *costPort) Follow(slot uint16, l store.List, has bool) {
	if p.owed[slot] == nil {
		p.owed[slot] = new([2]int)
	}
	p.owed[slot][l] = entriesPerSlot * entryBytes
	if has {
		p.owed[slot][l] = 0
	}
}

func (p *costPort) Collect(slot uint16, l store.List, b []byte, _ int) ([]byte, bool) {
	if o := p.owed[slot]; o != nil {
		b = append(b, make([]byte, o[l])...)
		o[l] = 0
	}
	return b, true
}

func (p *costPort) Note(e possess.Event) {
	if e.Kind == possess.Received {
		p.f.moved++
	}
}

func (f *fleet) add(id possess.ID) {
	f.ids = append(f.ids, id)
	f.machines[id] = possess.New(possess.DefaultConfig(id), &costPort{f, id, map[uint16]*[2]int{}}, f.now+1)
}

// view gives all machines the ring of the first n members.
func (f *fleet) view(n int) {
	boots := make([]ring.Boot, n)
	for i := range boots {
		boots[i] = ring.Boot(f.ids[i])
	}
	r := ring.New(boots)
	v := possess.View{
		Order: func(slot uint16) (ids [4]possess.ID) {
			for i, b := range r.Order(slot) {
				ids[i] = possess.ID(b)
			}
			return ids
		},
		Alive: f.ids[:n], Dead: func(possess.ID) bool { return false },
	}
	for _, id := range f.ids[:n] {
		f.machines[id].SetView(f.now, v)
	}
}

// run lets virtual time pass until done says so, at most d. done is asked every
// 20 ms, for it may look at every slot of every member.
func (f *fleet) run(d int64, done func() bool) (took int64) {
	start, ask := f.now, f.now
	for next := f.now; f.now < start+d; {
		if f.now >= next {
			for i, id := range f.ids {
				f.machines[id].Tick(f.now + int64(i)%5)
			}
			next += tick
			if f.now >= ask {
				ask = f.now + 20*ms
				if done() {
					break
				}
			}
		}
		for len(f.events) > 0 && f.events[0].at <= next {
			e := f.events.pop()
			f.now = e.at
			e.do()
		}
		f.now = next
	}
	return f.now - start
}

func (f *fleet) reset() { f.messages, f.bytes, f.moved = map[string]int{}, map[string]int{}, 0 }

func TestCostOfARingChange(t *testing.T) {
	n := *costMembers
	if n == 0 {
		n = 10
	}
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // 1,000 members take gigabytes
	f := &fleet{machines: map[possess.ID]*possess.Machine{}, now: second}
	f.reset()
	rng := New(Options{Seed: 3}).rng
	for range n {
		f.add(rng.Uint64() | 1)
	}
	settled := func() bool {
		for _, id := range f.ids {
			if !f.machines[id].Settled() {
				return false
			}
		}
		return true
	}
	f.view(n)
	took := f.run(30*second, settled)
	t.Logf("%d members start: %v", n, time.Duration(took))
	f.run(3*second, func() bool { return false })
	f.reset()
	f.run(second, func() bool { return false })
	t.Logf("at rest, a member and second: %d beats sent, %d bytes", f.messages["Beat"]/n, (f.bytes["Beat"]+f.bytes["BeatAck"])/n)
	if f.messages["Sync"] > 0 {
		t.Errorf("%d Syncs at rest", f.messages["Sync"])
	}
	f.add(rng.Uint64() | 1)
	f.reset()
	f.view(n + 1)
	took = f.run(30*second, settled)
	moved := f.moved
	f.run(4*second, func() bool { return false }) // backups find their places
	t.Logf("one joins: its %d slots are moved after %v; until backups are in place, all members together:", moved, time.Duration(took))
	for _, kinds := range [][2]string{{"Sync", "SyncAck"}, {"Ask", "Answer"}, {"Announce"}} {
		t.Logf("%v: %d messages, %d KiB", kinds, f.messages[kinds[0]]+f.messages[kinds[1]], (f.bytes[kinds[0]]+f.bytes[kinds[1]])>>10)
	}
	if !settled() || moved == 0 {
		t.Errorf("not settled: %d slots moved", moved)
	}
}
