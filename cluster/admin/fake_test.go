package admin

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/peerlimit/peerlimit/cluster"
)

// fakeNode is a member of a cluster that there is not.
type fakeNode struct {
	status  cluster.Status
	members []cluster.Member // the first is it itself
	ready   error
	answer  func(ctx context.Context, to cluster.Member) ([]byte, error)

	calls    atomic.Int64
	handlers map[string]func(context.Context, cluster.Member, []byte) ([]byte, error)
	watcher  func(cluster.Event)
}

var errNoAnswer = errors.New("no answer")

func newFakeNode() *fakeNode {
	return &fakeNode{
		status: cluster.Status{
			Name: "shop", Self: "a", Boot: "00000000000000aa", Ready: true, Joined: "joined",
			Members: []cluster.MemberStatus{
				{Name: "a", Boot: "00000000000000aa", State: cluster.StateAlive, OwnedSlots: 8000},
				{Name: "b", Boot: "00000000000000bb", State: cluster.StateAlive, OwnedSlots: 8384},
			},
			Ring:       cluster.RingStatus{Version: "0123456789abcdef", Slots: 16384},
			Possession: cluster.Possession{Slots: 8000, Unprotected: 3},
			Breakers:   map[string]string{"b": "open"},
			KV:         cluster.KVStatus{State: "available", Breaker: "closed"},

			FramesRejected: map[string]uint64{"secret": 2},
		},
		members:  []cluster.Member{{Name: "a", Boot: 0xaa}, {Name: "b", Boot: 0xbb}},
		handlers: map[string]func(context.Context, cluster.Member, []byte) ([]byte, error){},
	}
}

func (n *fakeNode) Self() cluster.Member      { return n.members[0] }
func (n *fakeNode) Members() []cluster.Member { return n.members }
func (n *fakeNode) Status() cluster.Status    { return n.status }
func (n *fakeNode) Ready() error              { return n.ready }

func (n *fakeNode) Watch(f func(cluster.Event)) (stop func()) {
	n.watcher = f
	return func() {}
}

func (n *fakeNode) Handle(kind string, h func(context.Context, cluster.Member, []byte) ([]byte, error)) {
	n.handlers[kind] = h
}

func (n *fakeNode) Call(ctx context.Context, to cluster.Member, _ string, _ []byte) ([]byte, error) {
	n.calls.Add(1)
	if n.answer == nil {
		return nil, errNoAnswer
	}
	return n.answer(ctx, to)
}
