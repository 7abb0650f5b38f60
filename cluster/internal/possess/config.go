package possess

import (
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

// Config is a machine's configuration. Durations are nanoseconds.
type Config struct {
	Self  ID
	Slots int // store.Slots, fewer in a simulator

	Grant     int64 // what a backup promises: 150 ms
	Beat      int64 // how often a grant is renewed: 30 ms
	Suspect   int64 // an unanswered beat of that age makes its receiver suspect: 50 ms
	Replace   int64 // a backup that has been silent for so long is replaced: 110 ms
	Steady    int64 // who was silent is not made backup of its own accord before it has been heard for so long: 1 s
	Gap       int64 // a pause of the own clock after which silence means nothing: 50 ms
	Prompt    int64 // who answers within that may be given a slot: 25 ms
	CopyEvery int64 // how often changes are sent that nobody waits for: 20 ms
	Scan      int64 // how often all slots are looked over: 20 ms
	Reask     int64 // how often an unanswered question is asked again: 40 ms
	Trip      int64 // what a question and its answer take at most: 16 ms
	Fresh     int64 // how old an answer may be, less than Grant by a trip: 130 ms

	// Phase is what has to be added to the clock for the instants at which beats
	// begin to be multiples of Beat. Members who agree on those are woken once
	// for the beats of all others.
	Phase int64

	// MinMembers is the number of members, this one included, below which
	// it refuses to serve. At least 1.
	MinMembers int
	// MoveSlots is how many slots are moved to one member in a scan, and four times
	// as many of those that have no backup: 256.
	MoveSlots int
	// OpenAsks is about how many questions may be open at a time, to members that
	// are heard, about slots that are to start empty or have no backup: 1024. Were it
	// all of them, then on a machine that is short of processors answers would come
	// so late that they don't count any more, to questions that have been asked again
	// meanwhile, for ever.
	OpenAsks int
	// SyncBytes is about the size of a message with entries.
	SyncBytes int

	// Broken switches rules off, one test each. See package sim.
	Broken Broken
}

// Broken names rules that a test breaks on purpose.
type Broken struct {
	NoGrantCheck     bool // a holder serves although its grant has run out
	GiveWithoutGrant bool // a slot is given away although the grant has run out
	StaleBackupTakes bool // a backup asks nobody before it takes over
	EmptyBesideCopy  bool // a slot starts empty where a copy exists
	LeaveAtOnce      bool // a leaver does not wait
	NoBound          bool // permits may be outstanding without bound
}

// DefaultConfig returns the protocol's timings for self.
func DefaultConfig(self ID) Config {
	ms := int64(time.Millisecond)
	return Config{
		Self: self, Slots: store.Slots,
		Grant: 150 * ms, Beat: 30 * ms, Suspect: 50 * ms, Replace: 110 * ms, Steady: 1000 * ms, Gap: 50 * ms, Prompt: 25 * ms,
		CopyEvery: 20 * ms, Scan: 20 * ms, Reask: 40 * ms, Trip: 16 * ms, Fresh: 130 * ms,
		MinMembers: 1, MoveSlots: 256, OpenAsks: 1024, SyncBytes: 64 << 10,
	}
}

// Slower returns c with everything taking n times as long, so that n times as
// much can be done meanwhile.
func (c Config) Slower(n int64) Config {
	for _, d := range []*int64{&c.Grant, &c.Beat, &c.Suspect, &c.Replace, &c.Steady, &c.Gap, &c.Prompt, &c.CopyEvery, &c.Scan, &c.Reask, &c.Trip, &c.Fresh} {
		*d *= n
	}
	c.MoveSlots *= int(n)
	return c
}
