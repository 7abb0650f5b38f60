package possess

// ID is a member's boot ID: one process life. 0 is nobody.
type ID = uint64

// Message is what members say to one another. Instants in it are the sender's,
// given back to it untouched, or ages.
type Message interface{ kind() byte }

// Beat renews the grant that the receiver, a backup, gives the sender.
type Beat struct {
	Sent int64  // when, on the sender's clock
	Term uint64 // of the grant, as the sender knows it
}

// BeatAck renews the grant from Sent on, if Term is the one the asker knows.
type BeatAck struct {
	Sent int64
	Term uint64
}

// As says what an item of a Sync makes of its receiver.
type As byte

const (
	AsBackup   As = iota // the slot's backup
	AsFollower           // one who is brought up to date
	AsHolder             // the sender gives up possession to the receiver, and is its backup
	AsMerge              // the sender's reign has lost: take its entries in
)

// SyncItem is a part of one slot.
type SyncItem struct {
	Slot  uint16
	As    As
	Epoch uint64
	View  uint32
	// Fresh: forget what you have of the slot first.
	Fresh bool
	// Complete: with this you have everything.
	Complete bool
	Entries  []byte
}

// Sync carries entries and roles. One is under way from a member to another.
type Sync struct {
	Seq  uint64
	Sent int64
	Term uint64
	// Age is how long ago the entries were encoded.
	Age int64
	// Echo is the latest instant of the receiver's clock that the sender
	// has seen: a grant to the receiver counts from there.
	Echo int64
	// YourTerm is the term of the sender's grant to the receiver.
	YourTerm uint64
	// Draining: the sender is leaving and takes nothing any more.
	Draining bool
	Items    []SyncItem
}

// SyncAck answers a Sync. Items that are not refused were taken.
type SyncAck struct {
	Seq  uint64
	Sent int64 // of the Sync
	Term uint64
	Now  int64 // the acknowledger's clock
	// Draining: the acknowledger is leaving and takes nothing any more.
	Draining bool
	Refused  []Known
}

// Claim is what an Ask is about.
type Claim byte

const (
	ClaimTake   Claim = iota // a backup wants to take over at Epoch
	ClaimRename              // a holder wants to name another backup, at View
	ClaimFound               // a slot's first wants to start it empty
)

// AskItem asks about one slot.
type AskItem struct {
	Slot  uint16
	Claim Claim
	// Epoch and View are what the asker has; it claims what comes next.
	Epoch uint64
	View  uint32
	Full  bool // its copy is complete
}

// Ask asks whether anything speaks against a claim. Who finds nothing promises
// to back no other claim of equal or lower rank for a while.
type Ask struct {
	Sent  int64
	Items []AskItem
}

// Stand is what one member knows and is for a slot.
type Stand byte

const (
	StandNone   Stand = iota // neither possession nor copy
	StandCopy                // an incomplete copy
	StandFull                // a complete copy
	StandHolder              // possession
)

// Known is what a member knows of a slot.
type Known struct {
	Slot   uint16
	Epoch  uint64
	View   uint32
	Holder ID
	Backup ID
	Stand  Stand
	// Busy: nothing speaks against it but a promise to another.
	Busy bool
}

// Answer answers an Ask, item by item.
type Answer struct {
	Sent  int64 // of the Ask
	Items []Known
}

// Announce says who possesses slots now.
type Announce struct{ Items []Known }

func (*Beat) kind() byte     { return 1 }
func (*BeatAck) kind() byte  { return 2 }
func (*Sync) kind() byte     { return 3 }
func (*SyncAck) kind() byte  { return 4 }
func (*Ask) kind() byte      { return 5 }
func (*Answer) kind() byte   { return 6 }
func (*Announce) kind() byte { return 7 }
