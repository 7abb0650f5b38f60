package possess

import (
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// bounded brings what the wire bounds into its bounds.
func bounded(m Message) Message {
	known := func(items []Known) []Known {
		for i := range items {
			items[i].Slot %= maxSlots
			items[i].Stand %= StandHolder + 1
		}
		return append([]Known{}, items...)
	}
	switch m := m.(type) {
	case *Sync:
		m.Items = append([]SyncItem{}, m.Items...)
		for i := range m.Items {
			it := &m.Items[i]
			it.Slot %= maxSlots
			it.As %= AsMerge + 1
			it.Entries = append([]byte{}, it.Entries...)
		}
	case *SyncAck:
		m.Refused = known(m.Refused)
	case *Ask:
		m.Items = append([]AskItem{}, m.Items...)
		for i := range m.Items {
			m.Items[i].Slot %= maxSlots
			m.Items[i].Claim %= ClaimFound + 1
		}
	case *Answer:
		m.Items = known(m.Items)
	case *Announce:
		m.Items = known(m.Items)
	}
	return m
}

// drawMessage draws any message, whatever fields its kind has.
func drawMessage(t *rapid.T) Message {
	switch rapid.IntRange(1, 7).Draw(t, "kind") {
	case 1:
		return drawAs[Beat](t)
	case 2:
		return drawAs[BeatAck](t)
	case 3:
		return drawAs[Sync](t)
	case 4:
		return drawAs[SyncAck](t)
	case 5:
		return drawAs[Ask](t)
	case 6:
		return drawAs[Answer](t)
	default:
		return drawAs[Announce](t)
	}
}

func drawAs[T any, P interface {
	*T
	Message
}](t *rapid.T) Message {
	m := rapid.Make[T]().Draw(t, "message")
	return bounded(P(&m))
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
		// Whatever it says, a machine takes it. Senders number from their
		// clocks, never from zero.
		if s, ok := m.(*Sync); ok && s.Seq == 0 {
			return
		}
		l := newLab(t, 1, 3)
		l.view(1, 2, 3)
		l.Receive(l.now, 2, m)
		l.pass(300 * ms)
	})
}
