package possess

// Rest says, after a Tick, that there may be none before the next beats begin,
// if nothing is to be done before. A member at rest is woken less for it. As soon
// as [Machine.Resting] is false again ticks have to go on.
func (m *Machine) Rest() bool {
	if !m.calm() {
		return false
	}
	m.rests = (m.lastBeat+1)*m.cfg.Beat - m.cfg.Phase
	return true
}

// Resting reports whether no tick is needed now.
func (m *Machine) Resting(now int64) bool { return now < m.rests && m.calm() }

// calm reports whether nothing is open, and everybody that matters was heard
// since the last beats but one: a tick is to find out soon who is silent.
func (m *Machine) calm() bool {
	if !m.started || m.draining || m.scanned == 0 || len(m.claims)+len(m.busy)+len(m.later) > 0 {
		return false
	}
	late := m.now - m.cfg.Beat - m.cfg.Beat/2
	for _, p := range m.peers {
		if !p.gone && (p.backs > 0 && p.acked < late || p.copies > 0 && p.heard < late) {
			return false
		}
	}
	for _, w := range m.restless {
		if w != 0 {
			return false
		}
	}
	return true
}
