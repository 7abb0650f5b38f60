package possess

// Lag returns for how many nanoseconds the oldest change, or copy of a slot,
// that a backup has not acknowledged has been queued or under way; 0 where there
// is none. It changes nothing.
func (m *Machine) Lag(now int64) int64 {
	since := now
	for _, p := range m.peers {
		if p.flight != nil {
			for _, it := range p.flight.items {
				if st := &m.slots[it.slot]; it.to == toBackup && st.flying[toBackup] == it.number {
					since = min(since, it.since)
				}
			}
		}
		for _, w := range p.queue {
			if st := &m.slots[w.slot]; w.to == toBackup && st.queued[toBackup] && st.role == roleHolder && st.backup == p.id {
				since = min(since, w.since)
			}
		}
	}
	return now - since
}
