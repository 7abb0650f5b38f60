package possess

// Tick lets time pass. It is called every 5 to 10 ms, but for times of rest; see
// [Machine.Rest].
func (m *Machine) Tick(now int64) {
	if now-max(m.lastTick, min(m.rests, now)) > m.cfg.Gap {
		m.afterGap(now)
	}
	m.lastTick, m.rests = now, 0
	m.enter(now)
	if !m.started {
		return
	}
	m.extend(m.aloneGrant, now+m.cfg.Gap, m.cfg.Self)
	m.beat()
	if m.due(m.lastScan, m.cfg.Scan) {
		m.lastScan = now
		m.scan()
	}
	m.runClaims()
	if m.due(m.lastCopy, m.cfg.CopyEvery) {
		m.lastCopy = now
		for _, slot := range m.later {
			m.queueBackup(slot)
		}
		m.later = m.later[:0]
		m.port.TakeMarks(m.queueBackup)
	}
	m.leave()
}

// due reports whether what was done last at that instant is to be done again. A
// tick that comes a little early must do, or it is done a whole tick too late.
func (m *Machine) due(last, every int64) bool { return m.now-last >= every-every/8 }

// afterGap starts all timers of silence again: what others said while this
// member was not running waits to be read.
func (m *Machine) afterGap(now int64) {
	m.lastGap = now
	for _, p := range m.peers {
		p.heard = now
		p.acked = now
		p.promised = max(p.promised, now+m.cfg.Grant)
	}
	m.scanned = 0
	for s := range m.slots {
		st := &m.slots[s]
		st.since = now
		if st.role == roleHolder && st.cover == m.cfg.Self && len(m.view.Alive) > 1 {
			// Being alone ended: ask again before serving on.
			st.coverBy(0)
			m.gate(uint16(s))
		}
	}
	for _, s := range m.claims {
		if c := m.slots[s].claim; c != nil {
			c.restart(now)
		}
	}
}

// paused reports whether this member stood still a moment ago. What it knows may
// be old then, and who has taken over from it, or gone on alone, has no reason to
// speak to it.
func (m *Machine) paused() bool { return m.lastGap != 0 && m.now-m.lastGap < m.cfg.Steady }
