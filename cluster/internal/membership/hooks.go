package membership

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// hooks is what memberlist calls, mostly under its own lock: nothing here may
// block or call back into memberlist, but for NotifyMsg, which holds no lock.
type hooks struct{ m *Membership }

// memberOf copies what memberlist knows of a member.
func memberOf(n *memberlist.Node) (Member, error) {
	id, boot, err := parseName(n.Name)
	if err != nil {
		return Member{}, err
	}
	meta, err := parseMeta(n.Meta)
	if err != nil {
		return Member{}, err
	}
	if meta.ID != id {
		return Member{}, fmt.Errorf("membership: %s calls itself %s", n.Name, meta.ID)
	}
	addr, ok := netip.AddrFromSlice(n.Addr)
	if !ok || n.Port == 0 {
		return Member{}, fmt.Errorf("membership: %s has no address", n.Name)
	}
	return Member{Meta: meta, Boot: boot, Gossip: netip.AddrPortFrom(addr.Unmap(), n.Port)}, nil
}

var errOver = errors.New("this life is over")

// NotifyAlive decides whether word that a member is alive is believed.
func (h *hooks) NotifyAlive(n *memberlist.Node) error {
	member, err := memberOf(n)
	if err != nil {
		h.m.joiner.warn("meta "+n.Name, "member refused", "member", n.Name, "error", err)
		return err
	}
	if member.Boot == h.m.boot {
		return nil
	}
	if member.Gossip == h.m.transport.advertise {
		// Only one process can listen there, and that is this one.
		h.m.table.heard(member.Boot, Dead, 0)
		h.m.table.gone(member.Boot, true)
		return errOver
	}
	if !h.m.table.believes(member.Boot) {
		return errOver
	}
	h.m.mu.Lock()
	meta := h.m.meta
	h.m.mu.Unlock()
	if !meta.speaks(member.Meta) {
		err := fmt.Errorf("it speaks peer protocol %d to %d, this member %d to %d",
			member.ProtoMin, member.ProtoMax, meta.ProtoMin, meta.ProtoMax)
		h.m.joiner.warn("protocol "+n.Name, "member refused", "member", n.Name, "reason", err.Error())
		return err
	}
	return nil
}

// NotifyJoin is part of memberlist.EventDelegate.
func (h *hooks) NotifyJoin(n *memberlist.Node) { h.NotifyUpdate(n) }

// NotifyUpdate is part of memberlist.EventDelegate.
func (h *hooks) NotifyUpdate(n *memberlist.Node) {
	if member, err := memberOf(n); err == nil {
		h.m.table.alive(member)
	}
}

// NotifyLeave is part of memberlist.EventDelegate. It is called for deaths too,
// and the node doesn't say which it was: that is what the goodbye is for.
func (h *hooks) NotifyLeave(n *memberlist.Node) {
	if _, boot, err := parseName(n.Name); err == nil {
		h.m.table.gone(boot, false)
	}
}

// NodeMeta is part of memberlist.Delegate.
func (h *hooks) NodeMeta(int) []byte {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	return h.m.encoded
}

// NotifyMsg is part of memberlist.Delegate. b is overwritten after it returns.
func (h *hooks) NotifyMsg(b []byte) {
	kind, boot, err := parseMessage(b)
	if err != nil {
		return
	}
	switch kind {
	case msgLeaving:
		h.m.table.leaving(boot)
		h.m.send(h.m.table.get(boot), msgNoted)
	case msgNoted:
		h.m.goodbye.noted(boot)
	}
}

// GetBroadcasts is part of memberlist.Delegate.
func (h *hooks) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState is part of memberlist.Delegate: the fates of members go with each
// full exchange, so that one that has just joined knows of deaths before its
// time.
func (h *hooks) LocalState(bool) []byte { return appendFates(nil, h.m.table.fates()) }

// MergeRemoteState is part of memberlist.Delegate.
func (h *hooks) MergeRemoteState(b []byte, _ bool) {
	fates, err := parseFates(b)
	if err != nil {
		return
	}
	for _, f := range fates {
		state := Dead
		if f.left {
			state = Left
		}
		h.m.table.heard(f.boot, state, f.ago)
	}
}

// fates returns the latest departures and deaths.
func (t *table) fates() []fate {
	gone := t.list(func(m Member) bool { return !m.State.Live() && m.State != Unknown })
	now := t.now()
	out := make([]fate, 0, len(gone))
	for _, m := range gone {
		out = append(out, fate{boot: m.Boot, left: m.State == Left, ago: max(now.Sub(m.Since), time.Duration(0))})
	}
	return newest(out)
}
