package cluster

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/possess"
)

// news gathers what the machine does to slots, so that the log has one line
// for thousands of slots that went through the same.
type news struct {
	pending map[possess.Event]int // by kind and peer: slots
	since   int64
	totals  [possess.EventKinds]atomic.Uint64
}

// newsAfter is how long a line waits for more of the same.
const newsAfter = int64(100 * time.Millisecond)

// note is called with owner.mu held.
func (n *news) note(e possess.Event) {
	n.totals[e.Kind].Add(1)
	if n.pending == nil {
		n.pending = map[possess.Event]int{}
	}
	e.Slot = 0
	n.pending[e]++
}

var newsTexts = [possess.EventKinds]struct {
	text  string
	level slog.Level
}{
	possess.TookOver:    {"slot take-over", slog.LevelWarn},
	possess.Unprotected: {"unprotected", slog.LevelInfo},
	possess.Alone:       {"unprotected", slog.LevelInfo}, // by no peer at all
	possess.Gave:        {"slots handed over", slog.LevelDebug},
	possess.Received:    {"slots received", slog.LevelDebug},
	possess.Started:     {"slots started empty", slog.LevelDebug},
	possess.Outranked:   {"split suspected", slog.LevelWarn},
	possess.Merged:      {"slots merged", slog.LevelInfo},
}

// tell logs what has gathered. owner.mu is held.
func (n *news) tell(log *slog.Logger, now int64) {
	if len(n.pending) == 0 {
		n.since = now
		return
	}
	if now-n.since < newsAfter {
		return
	}
	for _, e := range slices.SortedFunc(maps.Keys(n.pending), func(a, b possess.Event) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Peer, b.Peer))
	}) {
		t := newsTexts[e.Kind]
		peer := "none"
		if e.Peer != 0 {
			peer = bootText(e.Peer)
		}
		log.Log(context.Background(), t.level, t.text, "peer", peer, "slots", n.pending[e])
	}
	clear(n.pending)
	n.since = now
}
