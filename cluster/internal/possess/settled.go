package possess

import "fmt"

// Settled reports whether every slot that this member should hold is held by
// it and can be served, and nothing else is held.
func (m *Machine) Settled() bool { return m.started && m.find(m.misplaced) < 0 }

// Unsettled says what keeps the member from being settled: how many slots, and
// how the first of them stands.
func (m *Machine) Unsettled() string { return m.tellOf(m.misplaced) }

func (m *Machine) misplaced(slot uint16, st *slotState) bool {
	return (m.first(slot) == m.cfg.Self) != (st.role == roleHolder) || st.role == roleHolder && st.cover == 0
}

// Empty reports whether a draining member may leave: it possesses nothing, and
// every holder whose backup it was has released it.
func (m *Machine) Empty() bool { return m.cfg.Broken.LeaveAtOnce || m.find(keeps) < 0 }

// Kept says what keeps a draining member from leaving: how many slots, and how
// the first of them stands.
func (m *Machine) Kept() string { return m.tellOf(keeps) }

func keeps(_ uint16, st *slotState) bool { return st.role != roleNone || st.merging }

// find returns the first slot that is as f says, -1 where none is.
func (m *Machine) find(f func(uint16, *slotState) bool) int {
	for s := range m.slots {
		if f(uint16(s), &m.slots[s]) {
			return s
		}
	}
	return -1
}

func (m *Machine) tellOf(f func(uint16, *slotState) bool) string {
	first := m.find(f)
	if first < 0 {
		return "no slots"
	}
	n := 0
	for s := range m.slots {
		if f(uint16(s), &m.slots[s]) {
			n++
		}
	}
	return fmt.Sprintf("%d slots, the first %d: %s", n, first, m.Describe(uint16(first)))
}
