package admin

import (
	"slices"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

const (
	goneShown = 15 * time.Minute // how long a member that has gone is shown
	goneKept  = 16
)

// gone remembers the members that have gone lately, of which a member's view of
// its cluster says nothing any more.
type gone struct {
	mu   sync.Mutex
	list []departure // guarded by mu; the latest last
}

type departure struct {
	name  string
	state cluster.MemberState
	at    time.Time
}

// goneView is a member that has gone, in an answer.
type goneView struct {
	Name  string              `json:"name"`
	State cluster.MemberState `json:"state"` // left, or dead
	AgoMS int64               `json:"ago_ms"`
}

// saw takes note of an event.
func (g *gone) saw(e cluster.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch e.Kind {
	case cluster.MemberJoined: // it is back, in this life or the next
		g.list = slices.DeleteFunc(g.list, func(d departure) bool { return d.name == e.Member.Name })
	case cluster.MemberLeft, cluster.MemberLost:
		state := cluster.StateLeft
		if e.Kind == cluster.MemberLost {
			state = cluster.StateDead
		}
		if len(g.list) == goneKept {
			g.list = slices.Delete(g.list, 0, 1)
		}
		g.list = append(g.list, departure{e.Member.Name, state, time.Now()})
	}
}

// without returns those who have gone, the latest first, but for those that are
// members all the same: another life of theirs came before this one ended.
func (g *gone) without(members []cluster.MemberStatus) []goneView {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := []goneView{}
	for _, d := range slices.Backward(g.list) {
		ago := time.Since(d.at)
		back := slices.ContainsFunc(members, func(m cluster.MemberStatus) bool { return m.Name == d.name })
		if ago < goneShown && !back {
			list = append(list, goneView{d.name, d.state, ago.Milliseconds()})
		}
	}
	return list
}
