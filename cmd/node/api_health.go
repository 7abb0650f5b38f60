package main

import (
	"errors"
	"sync"

	"github.com/peerlimit/peerlimit/cluster"
)

// probes knows what /readyz is told about this member; the zero value is one
// that starts. The answer itself is cluster/admin's.
type probes struct {
	mu     sync.Mutex
	node   *cluster.Node // guarded by mu; nil until it has started
	open   bool          // guarded by mu: the API answers
	leaves bool          // guarded by mu
}

// started says which node there is to ask.
func (p *probes) started(node *cluster.Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.node = node
}

// serving says that the API answers from now on.
func (p *probes) serving() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = true
}

// leaving says that this member should get no more requests.
func (p *probes) leaving() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaves = true
}

// ready is nil, or why this member should get no requests. Being short of
// members is no reason: the others would be short of one more.
func (p *probes) ready() error {
	p.mu.Lock()
	node, open, leaves := p.node, p.open, p.leaves
	p.mu.Unlock()
	switch {
	case leaves:
		return errors.New("draining: this member is leaving")
	case node == nil:
		return errors.New("starting: this member has not joined yet")
	}
	if err := node.Ready(); err != nil {
		return err
	}
	if !open {
		return errors.New("starting: this member has joined and does not serve yet")
	}
	return nil
}
