package possess

// Do is what to do with an operation that the gate did not let through.
type Do int

const (
	// Wait: keep the operation; the slot will be woken.
	Wait Do = iota
	// Moved: To holds the slot, as far as is known.
	Moved
	// Refuse: too few members are left.
	Refuse
	// Elsewhere: this member does not know; others may.
	Elsewhere
)

// Verdict says what to do with an operation.
type Verdict struct {
	Do    Do
	To    ID
	Epoch uint64
}

// Verdict says what to do with an operation on slot that the gate did not let
// through. tried is a member that its sender could not reach or that was
// silent, 0 if none.
func (m *Machine) Verdict(now int64, slot uint16, tried ID) Verdict {
	m.enter(now)
	st := &m.slots[slot]
	switch {
	case m.short:
		return Verdict{Do: Refuse}
	case st.role == roleHolder || st.giving:
		return Verdict{Do: Wait}
	case st.role == roleCopy && (st.claim != nil || st.holder == tried || m.dead(st.holder)):
		return Verdict{Do: Wait}
	case st.holder != 0 && st.holder != m.cfg.Self && !m.dead(st.holder):
		return Verdict{Do: Moved, To: st.holder, Epoch: st.epoch}
	}
	if first := m.first(slot); first != m.cfg.Self && first != 0 && first != tried {
		return Verdict{Do: Moved, To: first}
	}
	return Verdict{Do: Elsewhere}
}

// Holder returns who holds slot as far as this member knows, or else who
// should, and the epoch of that.
func (m *Machine) Holder(slot uint16) (ID, uint64) {
	st := &m.slots[slot]
	if st.holder != 0 && !m.dead(st.holder) {
		return st.holder, st.epoch
	}
	return m.first(slot), 0
}

// Holds reports whether slot is possessed here in that epoch, served or not.
func (m *Machine) Holds(slot uint16, epoch uint64) bool {
	st := &m.slots[slot]
	return st.role == roleHolder && st.epoch == epoch
}

// Unprotected reports whether this member, which had others, serves slot alone.
func (m *Machine) Unprotected(slot uint16) bool {
	st := &m.slots[slot]
	return m.company && st.role == roleHolder && st.cover == m.cfg.Self
}

// Audience reports who is being told of the slot's changes.
func (m *Machine) Audience(slot uint16) (backup, follower bool) {
	st := &m.slots[slot]
	if st.merging {
		return false, true
	}
	held := st.role == roleHolder
	return held && st.backup != 0, held && st.follower != 0 && st.follower != st.backup
}

// Moving reports whether a slot is on its way from here to another holder.
func (m *Machine) Moving() bool {
	for s := range m.slots {
		if st := &m.slots[s]; st.giving || st.role == roleHolder && st.follower != 0 && st.toHolder {
			return true
		}
	}
	return false
}
