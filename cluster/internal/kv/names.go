package kv

import (
	"context"
	"net"
	"sync"
)

// peerNames finds the member that runs the olric of a name.
type peerNames struct {
	store *Store

	mu    sync.Mutex // guards known
	known map[string]uint64
}

// find returns the boot ID of the live member that runs the olric of that name.
func (p *peerNames) find(ctx context.Context, name string) (uint64, bool) {
	host, _, err := net.SplitHostPort(name)
	if err != nil {
		return 0, false
	}
	peers := p.store.cfg.Peers()
	for _, peer := range peers {
		if LoopbackAddr(peer.Boot).String() == host {
			return peer.Boot, true
		}
	}
	if host != "127.0.0.1" {
		return 0, false
	}
	// A system with one loopback address only: the name tells nothing.
	if boot, ok := p.lookUp(peers, name); ok {
		return boot, true
	}
	p.askAll(ctx, peers)
	return p.lookUp(peers, name)
}

func (p *peerNames) lookUp(peers []Peer, name string) (uint64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	boot, ok := p.known[name]
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
	if p.known == nil || len(p.known) > maxMembers {
		p.known = make(map[string]uint64, len(peers))
	}
	for i, peer := range peers {
		if answers[i].name != "" {
			p.known[answers[i].name] = peer.Boot
		}
	}
	return answers
}
