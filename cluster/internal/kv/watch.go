package kv

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// availableFor is for how long a success counts.
	availableFor = 2 * time.Second
	// mergeAfter is for how many looks in a row, two probes apart, another part
	// of olric's cluster must have been seen before this member goes over.
	// Each time that it was in vain, as where the gossip's port is closed by
	// some firewall, it waits twice as long, up to 2^maxMergeShift times.
	mergeAfter    = 3
	maxMergeShift = 7
	// keepFor bounds for how long what a stopped olric held may still be
	// offered to the others. It must be well below the time that tombstones
	// live: what was deleted elsewhere since would come back.
	keepFor = TombstoneTTL / 3
)

// run keeps an olric running until ctx ends.
func (s *Store) run(ctx context.Context) {
	var rest *engine // what the olric before this one held
	var once sync.Once
	for {
		in, err := s.startInstance(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			s.setState(stateUnavailable)
			s.logger.Warn("kv: olric can't be started", slog.Any("error", err))
			if !sleep(ctx, time.Second) {
				return
			}
			continue
		}
		s.caller.Store(&caller{DMap: in.dmap})
		s.lastOK.Store(int64(s.own()))
		s.setState(stateAvailable)
		once.Do(func() { close(s.ready) })

		var why string
		var wg sync.WaitGroup
		life, end := context.WithCancel(ctx)
		wg.Go(func() { s.repairCopies(life, in, rest) })
		why = s.watchInstance(life, in)
		end()
		wg.Wait()
		if ctx.Err() != nil {
			return
		}
		rest = s.retire(in, why)
	}
}

// retire stops an olric that is to be started anew, and returns what may be
// carried over.
func (s *Store) retire(in *instance, why string) *engine {
	s.caller.Store(nil)
	s.instance.Store(nil)
	s.setState(stateUnavailable)
	s.restarts.Add(1)
	s.logger.Warn("kv: olric is started anew", slog.String("why", why))
	age := s.own() - time.Duration(s.lastOK.Load())
	if why == whyMerge {
		age = time.Since(in.born)
	} else {
		in.kill()
	}
	s.stopInstance(in)
	if age > keepFor {
		return nil
	}
	return in.engine
}

const (
	whyBroken  = "it did not answer"
	whyStopped = "it stopped"
	whyMerge   = "another part of the cluster was found"
)

// watchInstance looks after an olric until it has to be started anew, and says
// why, or until ctx ends.
func (s *Store) watchInstance(ctx context.Context, in *instance) string {
	ticker := time.NewTicker(s.timings.probe)
	defer ticker.Stop()
	apart := 0
	for round := 1; ; round++ {
		select {
		case <-ctx.Done():
			return ""
		case <-in.served:
			return whyStopped
		case <-ticker.C:
		}
		s.probe(ctx)
		silent := s.own() - time.Duration(s.lastOK.Load())
		switch {
		case silent > s.timings.broken:
			return whyBroken
		case silent > availableFor:
			s.setState(stateUnavailable)
		default:
			s.setState(stateAvailable)
		}
		if round%2 == 1 {
			continue
		}
		if !s.mustJoinOthers(ctx, in.members()) {
			if apart = 0; round > 2*mergeAfter {
				s.merges = 0
			}
		} else if apart++; apart >= mergeAfter<<min(s.merges, maxMergeShift) {
			s.merges++
			return whyMerge
		}
	}
}

// repairCopies offers the others what the olric before this one held, and then,
// each time that members were lost and their number has been stable for a while,
// what this one holds: so that everything has two copies again. Where the table
// of who owns what was still changing then, it does so once more when that has
// been the same for a while.
func (s *Store) repairCopies(ctx context.Context, in *instance, rest *engine) {
	if rest != nil {
		limited, cancel := context.WithTimeout(ctx, keepFor)
		s.copyAll(limited, in.dmap, rest, copyWorkers)
		cancel()
	}
	ticker := time.NewTicker(s.timings.probe)
	defer ticker.Stop()
	members := in.members()
	changed := time.Now()
	var lost time.Time
	var due, again bool // copies are to be made good; were, by a table that was new
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			before := members
			members = in.members()
			if !slices.Equal(before, members) {
				changed = now
			}
			if slices.ContainsFunc(before, func(m string) bool { return !slices.Contains(members, m) }) {
				lost, due, again = now, true, false
			}
			t := in.table.Load()
			same := t != nil && now.Sub(t.since) >= s.timings.settle
			if due && now.Sub(lost) >= s.timings.settle || again && same {
				due, again = false, !same
				s.copyAll(ctx, in.dmap, in.engine, 1)
				changed = time.Now() // the others take as long, about
			}
			if t != nil {
				t.settled.Store(!due && !again && now.Sub(changed) >= s.timings.trust && now.Sub(t.since) >= s.timings.trust)
			}
		}
	}
}

// probe asks for a key that isn't there, of another partition each time.
func (s *Store) probe(ctx context.Context) {
	_, _ = s.fetchByOlric(ctx, s.timings.call, "\x00probe\x00"+strconv.FormatUint(rand.Uint64(), 36))
}

// mustJoinOthers tells whether a live member runs an olric that is in another
// cluster than ours, and theirs is the one to stay: the larger, or of two as
// large the one whose coordinator's name is lower. Members that start at the
// same time, or could not reach each other, come together by this; olric itself
// never looks again once it runs.
func (s *Store) mustJoinOthers(ctx context.Context, ours []string) bool {
	if len(ours) == 0 {
		return false
	}
	strangers := slices.DeleteFunc(s.cfg.Peers(), func(p Peer) bool { return isAmong(p.Boot, ours) })
	if len(strangers) == 0 {
		return false
	}
	for _, st := range s.peers.askAll(ctx, strangers) {
		if st.name == "" || len(st.members) == 0 || slices.Contains(ours, st.name) || slices.Contains(st.members, ours[0]) {
			continue
		}
		if len(st.members) > len(ours) || len(st.members) == len(ours) && st.members[0] < ours[0] {
			return true
		}
	}
	return false
}

// isAmong tells whether the member's olric is certainly among those names.
func isAmong(boot uint64, names []string) bool {
	host := LoopbackAddr(boot).String() + ":"
	return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, host) })
}

// reapAll removes what has expired, a tenth of the shards each second.
func (s *Store) reapAll(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		in := s.current()
		if in == nil {
			continue
		}
		over := in.engine.bytes.Load() > in.engine.maxBytes
		for i, sh := range in.engine.all() {
			if over || i%10 == round%10 {
				sh.reap()
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
