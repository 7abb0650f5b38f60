package cluster

import "github.com/peerlimit/peerlimit/cluster/internal/possess"

// Possession is what a member serves and what it has been through since it
// started.
type Possession struct {
	Slots       int    `json:"slots"`       // possessed: served by this member
	Unprotected int    `json:"unprotected"` // of these, without a backup that has a full copy
	TakeOvers   uint64 `json:"takeovers"`   // slots taken over from members that fell silent
	Moves       uint64 `json:"moves"`       // slots handed to or by others
	Merges      uint64 `json:"merges"`      // messages with entries of reigns that had lost
	Waiting     int    `json:"waiting"`     // operations parked here
}

// possession returns the member's state; nothing before it has begun.
func (o *owner) possession() Possession {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := Possession{
		TakeOvers: o.news.totals[possess.TookOver].Load(),
		Moves:     o.news.totals[possess.Gave].Load() + o.news.totals[possess.Received].Load(),
		Merges:    o.news.totals[possess.Merged].Load(),
		Waiting:   o.waiting,
	}
	o.machine.Held(func(_ uint16, _ uint64, protected bool) {
		p.Slots++
		if !protected {
			p.Unprotected++
		}
	})
	return p
}
