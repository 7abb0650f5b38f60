package peer

import (
	"errors"
	"fmt"
	"time"
)

// Boot is a member's boot ID: one process life. A process that comes back has another one, whatever its address.
// Zero is no member.
type Boot uint64

// String is the boot ID in hexadecimal, as logs show it.
func (b Boot) String() string { return fmt.Sprintf("%016x", uint64(b)) }

// Lane names one of the connections between two members. Frames of a lane keep their order; lanes don't delay one
// another.
type Lane uint8

// The lanes. Ops and Control are connected as soon as a peer is known, so that its death is seen at once, and Bulk, so
// that a slot which changes hands does not wait for a handshake; Calls on first use.
const (
	LaneOps     Lane = iota // operations on owned tables, and their answers
	LaneControl             // heartbeats, grants, replication
	LaneBulk                // moves of whole slots
	LaneCalls               // Call and Broadcast use it
	laneCount

	laneStream Lane = 0xff // in a hello: a byte stream, not a lane
)

// String is the lane's name in logs and metrics.
func (l Lane) String() string {
	switch l {
	case LaneOps:
		return "ops"
	case LaneControl:
		return "control"
	case LaneBulk:
		return "bulk"
	case LaneCalls:
		return "calls"
	case laneStream:
		return "stream"
	}
	return fmt.Sprintf("lane %d", uint8(l))
}

// eager says whether the lane is connected before anything is sent on it.
func (l Lane) eager() bool { return l == LaneOps || l == LaneControl || l == LaneBulk }

// dialPatience is how long frames may wait for a connection that is being dialed. A call in all takes at most 250 ms
// (PROTOCOL.md, "Serving"): an operation that arrived later would run for nobody.
func (l Lane) dialPatience() time.Duration {
	if l == LaneOps || l == LaneControl {
		return 250 * time.Millisecond
	}
	return time.Second
}

// TypeUser is the first frame type that is the caller's to define; lower ones are this package's.
const TypeUser byte = 16

// Message is one frame, as its sender and receiver see it.
type Message struct {
	Type    byte   // TypeUser or above
	ID      uint64 // the sender's choice; an answer carries that of its request
	Slot    uint16
	Epoch   uint64
	Payload []byte // at most MaxPayload bytes; when received, valid only until the callback returns
	Via     Via    // received only: the connection it came by; ignored when sent
}

// Via is the connection a message came by, for [Transport.Reply]. It is small, may be kept as long as the answer takes,
// and its zero value is no connection.
type Via struct{ c *conn }

// Peer is what membership knows of a member.
type Peer struct {
	Node string // stable node ID, for logs and breaker names
	Addr string // host:port of its peer port
}

// Loss says that frames to a boot may have been lost.
type Loss struct {
	Boot Boot
	Lane Lane  // whose frames; of no meaning when Gone
	Gone bool  // its address answered that it belongs to another boot: this one is dead
	Err  error // why
}

// What a caller can act on. Errors of this package wrap one of these, a *RemoteError, or the context's error.
var (
	ErrUnknownPeer = errors.New("unknown peer")
	ErrPeerGone    = errors.New("peer is gone: its address belongs to another process")
	ErrUnreachable = errors.New("peer can't be reached now") // nothing was sent
	ErrLost        = errors.New("connection lost")           // it may or may not have run
	ErrQueueFull   = errors.New("queue to the peer is full")
	ErrBreakerOpen = errors.New("breaker is open")
	ErrBusy        = errors.New("too many calls in flight") // here or there; it did not run
	ErrUnknownKind = errors.New("the peer has no handler for this kind")
	ErrTooLarge    = errors.New("message too large")
	ErrType        = errors.New("message type is reserved") // below TypeUser
	ErrClosed      = errors.New("transport closed")
)

// RemoteError is an error that a handler on another member returned.
type RemoteError struct {
	Kind string // of the call
	Text string // the handler's error, at most 1 KiB
}

func (e *RemoteError) Error() string { return e.Kind + ": " + e.Text }
