package auth

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// lostFor is how long a member that was lost counts as missing if it never comes back. Members that are replaced
// under new names would otherwise be missed for ever.
const lostFor = time.Hour

// node is what of *cluster.Node is used here.
type node interface {
	Members() []cluster.Member
	Handle(kind string, h func(ctx context.Context, from cluster.Member, payload []byte) ([]byte, error))
	Call(ctx context.Context, to cluster.Member, kind string, payload []byte) ([]byte, error)
	Watch(f func(cluster.Event)) (stop func())
}

// members are the members of a cluster.
type members struct {
	node node
	now  func() time.Time

	mu   sync.Mutex // guards lost
	lost map[string]time.Time
}

func newMembers(n node, now func() time.Time) *members {
	return &members{node: n, now: now, lost: map[string]time.Time{}}
}

func (m *members) handle(kind string, f func([]byte)) {
	if f == nil {
		m.node.Handle(kind, nil)
		return
	}
	m.node.Handle(kind, func(_ context.Context, _ cluster.Member, payload []byte) ([]byte, error) {
		f(payload)
		return nil, nil
	})
}

// broadcast calls every member at once. One that does not know the kind has no Authenticator of this namespace, and
// so nothing cached: it counts as reached.
func (m *members) broadcast(ctx context.Context, kind string, payload []byte) Receipt {
	all := m.node.Members()
	r := Receipt{Members: len(all)}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards r
	for _, to := range all {
		wg.Go(func() {
			_, err := m.node.Call(ctx, to, kind, payload)
			mu.Lock()
			defer mu.Unlock()
			if err != nil && !errors.Is(err, cluster.ErrUnknownKind) {
				r.Unreached = append(r.Unreached, to.Name)
				return
			}
			r.Reached++
		})
	}
	wg.Wait()
	slices.Sort(r.Unreached)
	return r
}

func (m *members) watch(f func()) (stop func()) {
	return m.node.Watch(func(e cluster.Event) {
		m.mu.Lock()
		switch e.Kind {
		case cluster.MemberLost:
			m.lost[e.Member.Name] = m.now()
		case cluster.MemberJoined, cluster.MemberUpdated, cluster.MemberLeft:
			delete(m.lost, e.Member.Name) // a process that comes back has its name
		}
		m.mu.Unlock()
		f()
	})
}

func (m *members) whole() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, at := range m.lost {
		if m.now().Sub(at) > lostFor {
			delete(m.lost, name)
		}
	}
	return len(m.lost) == 0
}
