package possess

import (
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func drawSlot(t *rapid.T) uint16 { return rapid.Uint16Range(0, maxSlots-1).Draw(t, "slot") }

func drawKnown(t *rapid.T) []Known {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Known {
		return Known{
			Slot: drawSlot(t), Epoch: rapid.Uint64().Draw(t, "epoch"), View: rapid.Uint32().Draw(t, "view"),
			Holder: rapid.Uint64().Draw(t, "holder"), Backup: rapid.Uint64().Draw(t, "backup"),
			Stand: Stand(rapid.ByteRange(0, byte(StandHolder)).Draw(t, "stand")), Busy: rapid.Bool().Draw(t, "busy"),
		}
	}), 0, 5).Draw(t, "known")
}

func drawMessage(t *rapid.T) Message {
	u := func(name string) uint64 { return rapid.Uint64().Draw(t, name) }
	i := func(name string) int64 { return rapid.Int64().Draw(t, name) }
	switch rapid.IntRange(1, 7).Draw(t, "kind") {
	case 1:
		return &Beat{Sent: i("sent"), Term: u("term")}
	case 2:
		return &BeatAck{Sent: i("sent"), Term: u("term")}
	case 3:
		return &Sync{
			Seq: u("seq"), Sent: i("sent"), Term: u("term"), Age: i("age"), Echo: i("echo"), YourTerm: u("your term"),
			Draining: rapid.Bool().Draw(t, "draining"),
			Items: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) SyncItem {
				return SyncItem{
					Slot: drawSlot(t), As: As(rapid.ByteRange(0, byte(AsMerge)).Draw(t, "as")),
					Epoch: rapid.Uint64().Draw(t, "epoch"), View: rapid.Uint32().Draw(t, "view"),
					Fresh: rapid.Bool().Draw(t, "fresh"), Complete: rapid.Bool().Draw(t, "complete"),
					Entries: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "entries"),
				}
			}), 0, 5).Draw(t, "items"),
		}
	case 4:
		return &SyncAck{Seq: u("seq"), Sent: i("sent"), Term: u("term"), Now: i("now"), Refused: drawKnown(t)}
	case 5:
		return &Ask{Sent: i("sent"), Items: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) AskItem {
			return AskItem{
				Slot: drawSlot(t), Claim: Claim(rapid.ByteRange(0, byte(ClaimFound)).Draw(t, "claim")),
				Epoch: rapid.Uint64().Draw(t, "epoch"), View: rapid.Uint32().Draw(t, "view"), Full: rapid.Bool().Draw(t, "full"),
			}
		}), 0, 5).Draw(t, "items")}
	case 6:
		return &Answer{Sent: i("sent"), Items: drawKnown(t)}
	default:
		return &Announce{Items: drawKnown(t)}
	}
}

func TestMessageRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		b := Append(nil, m)
		got, err := Parse(b)
		require.NoError(t, err)
		require.Equal(t, m, got)
		n := rapid.IntRange(0, len(b)-1).Draw(t, "cut to")
		_, err = Parse(b[:n])
		require.ErrorIs(t, err, ErrMalformed)
		_, err = Parse(append(b, 0))
		require.ErrorIs(t, err, ErrMalformed)
		require.Equal(t, append([]byte("head"), b...), Append([]byte("head"), m))
	})
}

// The wire does not change unnoticed: members of two releases must understand
// one another.
func TestWireFormat(t *testing.T) {
	for want, m := range map[string]Message{
		"010207": &Beat{Sent: 1, Term: 7},
		"020107": &BeatAck{Sent: -1, Term: 7},
		"0607010503010901" + "0000000000000004" + "0000000000000005": &Answer{Sent: -4, Items: []Known{{Slot: 5, Epoch: 9, View: 1, Holder: 4, Backup: 5, Stand: StandHolder, Busy: true}}},
		"0700":                  &Announce{Items: []Known{}},
		"05020105020109" + "03": &Ask{Sent: 1, Items: []AskItem{{Slot: 5, Claim: ClaimFound, Full: true, Epoch: 9, View: 3}}},
		"0401020304" + "00":     &SyncAck{Seq: 1, Sent: 1, Term: 3, Now: 2, Refused: []Known{}},
		"0301020304050601" + "0105000302" + "04" + "026869": &Sync{Seq: 1, Sent: 1, Term: 3, Age: 2, Echo: -3, YourTerm: 6, Draining: true, Items: []SyncItem{{Slot: 5, As: AsBackup, Epoch: 2, View: 4, Fresh: true, Complete: true, Entries: []byte("hi")}}},
	} {
		require.Equal(t, want, hex.EncodeToString(Append(nil, m)), "%T", m)
	}
}

func TestMalformedMessages(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                   "",
		"an unknown kind":           "08",
		"kind 0":                    "00",
		"a number without an end":   "01ffffffffffffffffffff7f07",
		"a slot beyond the last":    "050201" + "808001" + "0000" + "0101",
		"an unknown claim":          "050201" + "05" + "03" + "00" + "0101",
		"an unknown stand":          "060701" + "05" + "04" + "00" + "0901" + "00000000000000040000000000000005",
		"unknown flags":             "050201" + "05" + "00" + "04" + "0101",
		"a view beyond 32 bits":     "050201" + "05" + "00" + "00" + "01" + "8080808010",
		"more items than bytes":     "0502" + "ffffffff0f" + "0500000101",
		"more bytes than there are": "03010203040506" + "00" + "01" + "05000301" + "02" + "7f" + "6869",
		"an item after the last":    "0700" + "00",
	} {
		b, err := hex.DecodeString(text)
		require.NoError(t, err)
		m, err := Parse(b)
		require.ErrorIs(t, err, ErrMalformed, "%s: %+v", name, m)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	for _, m := range []Message{
		&Beat{Sent: 1, Term: 7}, &BeatAck{},
		&Sync{Seq: 1, Items: []SyncItem{{Slot: 5, As: AsMerge, Epoch: 2, View: 4, Fresh: true, Entries: []byte("hi")}}},
		&SyncAck{Refused: []Known{{Slot: maxSlots - 1}}},
		&Ask{Items: []AskItem{{Slot: 1, Claim: ClaimFound}}}, &Answer{Items: []Known{{Busy: true}}}, &Announce{},
	} {
		f.Add(Append(nil, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || m != nil {
				t.Fatalf("%v, %v", m, err)
			}
			return
		}
		again, err := Parse(Append(nil, m))
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
		// Whatever it says, a machine takes it.
		l := newLab(t, 1, 3)
		l.view(1, 2, 3)
		l.Receive(l.now, 2, m)
		l.pass(300 * ms)
	})
}
