package possess

import "fmt"

// Describe tells a slot's state, for traces.
func (m *Machine) Describe(slot uint16) string {
	st := m.slots[slot]
	st.claim = nil
	s := fmt.Sprintf("%+v", st)
	if c := m.slots[slot].claim; c != nil {
		s += fmt.Sprintf(" claim %+v", *c)
	}
	for _, p := range m.peers {
		s += fmt.Sprintf("\n    pair %x backs %d term %d grant %d queue %v flight %v", p.id, p.backs, p.term, (p.grant.Until()-m.now)/1e6, p.queue, p.flight != nil)
		s += fmt.Sprintf(" promised %d acked %d", (p.promised-m.now)/1e6, (m.now-p.acked)/1e6)
	}
	return s
}
