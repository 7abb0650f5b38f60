package membership

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// State is what a member is known to be doing.
type State uint8

// The states of a member.
const (
	Unknown  State = iota // never heard of
	Alive                 // takes part
	Draining              // alive, hands over what it holds and will leave
	Left                  // said goodbye
	Dead                  // seen to have died; a false alarm can be taken back by the member itself
)

// String returns the state's name in lower case.
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Draining:
		return "draining"
	case Left:
		return "left"
	case Dead:
		return "dead"
	default:
		return "unknown"
	}
}

// Live tells whether a member in this state still answers.
func (s State) Live() bool { return s == Alive || s == Draining }

// A Member is one process life, by value.
type Member struct {
	Meta
	Boot   uint64         // never 0
	Gossip netip.AddrPort // where it listens for gossip
	State  State
	Since  time.Time // when this member learnt of State
}

// Name returns the member's unique name, node ID and boot ID.
func (m Member) Name() string { return NameOf(m.ID, m.Boot) }

// NameOf returns the name of the member with the given node ID and boot ID.
func NameOf(id string, boot uint64) string { return fmt.Sprintf("%s@%016x", id, boot) }

// parseName undoes NameOf.
func parseName(name string) (id string, boot uint64, err error) {
	id, hex, ok := strings.Cut(name, "@")
	if !ok || len(hex) != 16 {
		return "", 0, fmt.Errorf("membership: name %.100q is not ID@BOOT", name)
	}
	boot, err = strconv.ParseUint(hex, 16, 64)
	if err != nil || boot == 0 || NameOf(id, boot) != name {
		return "", 0, fmt.Errorf("membership: name %.100q has no boot ID", name)
	}
	return id, boot, nil
}
