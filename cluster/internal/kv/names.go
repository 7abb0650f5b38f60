package kv

import (
	"context"
	"net"
	"strings"
	"sync"
)

// peerNames finds the member that runs the olric of a name.
type peerNames struct {
	store *Store

	mu   sync.Mutex // guards said
	said map[string]uint64
}

// find returns the boot ID of the live member that runs the olric of that name.
func (p *peerNames) find(ctx context.Context, name string) (uint64, bool) {
	if boot := p.known(name); boot != 0 {
		return boot, true
	}
	if !strings.HasPrefix(name, "127.0.0.1:") {
		return 0, false
	}
	peers := p.store.cfg.Peers()
	p.askAll(ctx, peers)
	return p.lookUp(peers, name)
}

// known is find without asking anybody; 0: it is not known.
func (p *peerNames) known(name string) uint64 {
	host, _, err := net.SplitHostPort(name)
	if err != nil {
		return 0
	}
	peers := p.store.cfg.Peers()
	for _, peer := range peers {
		if LoopbackAddr(peer.Boot).String() == host {
			return peer.Boot
		}
	}
	// A system with one loopback address only: the name tells nothing.
	boot, _ := p.lookUp(peers, name)
	return boot
}

func (p *peerNames) lookUp(peers []Peer, name string) (uint64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	boot, ok := p.said[name]
	if !ok {
		return 0, false
	}
	for _, peer := range peers {
		if peer.Boot == boot {
			return boot, true
		}
	}
	return 0, false
}

// askAll asks all peers which olric they run, and returns their answers.
func (p *peerNames) askAll(ctx context.Context, peers []Peer) []status {
	answers := make([]status, len(peers))
	var wg sync.WaitGroup
	for i, peer := range peers {
		wg.Go(func() {
			if st, err := p.store.askStatusOf(ctx, peer.Boot); err == nil {
				answers[i] = st
			}
		})
	}
	wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.said == nil || len(p.said) > maxMembers {
		p.said = make(map[string]uint64, len(peers))
	}
	for i, peer := range peers {
		if answers[i].name != "" {
			p.said[answers[i].name] = peer.Boot
		}
	}
	return answers
}
