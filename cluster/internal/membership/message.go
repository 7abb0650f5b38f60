package membership

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

// Messages of our own that travel within memberlist's, under its encryption.
const (
	msgLeaving byte = 1 // type, boot ID of the sender: it leaves now, on purpose
	msgNoted   byte = 2 // type, boot ID of the sender: the goodbye was heard
)

const messageLen = 9

var errMessage = errors.New("membership: malformed message")

func appendMessage(b []byte, kind byte, boot uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, kind), boot)
}

func parseMessage(b []byte) (kind byte, boot uint64, err error) {
	if len(b) != messageLen || b[0] < msgLeaving || b[0] > msgNoted {
		return 0, 0, errMessage
	}
	boot = binary.BigEndian.Uint64(b[1:])
	if boot == 0 {
		return 0, 0, errMessage
	}
	return b[0], boot, nil
}

// A fate is what became of a member that has gone, as members tell it to one
// another with their lists.
type fate struct {
	boot uint64
	left bool
	ago  time.Duration // whole seconds on the wire, at most about 18 hours
}

// Bounds of the list of fates.
const (
	fateFormat = 1
	fateLen    = 11
	maxFates   = 512
)

// newest returns the latest fates, at most as many as a message holds.
func newest(fates []fate) []fate {
	slices.SortFunc(fates, func(a, b fate) int { return cmp.Compare(a.ago, b.ago) })
	return fates[:min(len(fates), maxFates)]
}

// appendFates appends format and, for each fate, boot ID, seconds ago, left.
func appendFates(b []byte, fates []fate) []byte {
	b = append(b, fateFormat)
	for _, f := range fates[:min(len(fates), maxFates)] {
		b = binary.BigEndian.AppendUint64(b, f.boot)
		b = binary.BigEndian.AppendUint16(b, uint16(min(max(f.ago/time.Second, 0), 1<<16-1)))
		if f.left {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	return b
}

func parseFates(b []byte) ([]fate, error) {
	if len(b) == 0 || b[0] != fateFormat || (len(b)-1)%fateLen != 0 || len(b) > 1+maxFates*fateLen {
		return nil, errMessage
	}
	var out []fate
	for b = b[1:]; len(b) > 0; b = b[fateLen:] {
		f := fate{
			boot: binary.BigEndian.Uint64(b),
			ago:  time.Duration(binary.BigEndian.Uint16(b[8:])) * time.Second,
			left: b[10] == 1,
		}
		if f.boot == 0 || b[10] > 1 {
			return nil, errMessage
		}
		out = append(out, f)
	}
	return out, nil
}
