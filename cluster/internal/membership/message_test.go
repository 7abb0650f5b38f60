package membership

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMessages(t *testing.T) {
	for _, kind := range []byte{msgLeaving, msgNoted} {
		gotKind, boot, err := parseMessage(appendMessage(nil, kind, 7))
		require.NoError(t, err)
		assert.Equal(t, kind, gotKind)
		assert.EqualValues(t, 7, boot)
	}
	for _, bad := range [][]byte{nil, {1}, appendMessage(nil, 0, 7), appendMessage(nil, 3, 7), appendMessage(nil, 1, 0), append(appendMessage(nil, 1, 7), 0)} {
		_, _, err := parseMessage(bad)
		assert.Error(t, err, "%x", bad)
	}
}

func TestFates(t *testing.T) {
	fates := []fate{{boot: 1, left: true, ago: 90 * time.Second}, {boot: 1<<64 - 1}, {boot: 3, ago: 48 * time.Hour}}
	got, err := parseFates(appendFates(nil, fates))
	require.NoError(t, err)
	fates[2].ago = (1<<16 - 1) * time.Second
	assert.Equal(t, fates, got)

	many := make([]fate, maxFates+5)
	for i := range many {
		many[i] = fate{boot: uint64(i) + 1, ago: time.Duration(len(many)-i) * time.Second}
	}
	got, err = parseFates(appendFates(nil, newest(many)))
	require.NoError(t, err)
	assert.Len(t, got, maxFates)
	assert.Equal(t, time.Second, got[0].ago, "the latest first")

	for _, bad := range [][]byte{nil, {2}, {1, 0}, append([]byte{1}, make([]byte, fateLen)...), make([]byte, 1+(maxFates+1)*fateLen)} {
		_, err := parseFates(bad)
		assert.Error(t, err)
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add(appendMessage(nil, msgLeaving, 1))
	f.Add(appendMessage(nil, msgNoted, 1<<63))
	f.Add([]byte("\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, boot, err := parseMessage(b)
		if err == nil && string(appendMessage(nil, kind, boot)) != string(b) {
			t.Fatalf("%x is not what it was read as: %d %x", b, kind, boot)
		}
	})
}

func FuzzParseFates(f *testing.F) {
	f.Add(appendFates(nil, []fate{{boot: 1, left: true, ago: time.Minute}, {boot: 2}}))
	f.Add([]byte{fateFormat})
	f.Fuzz(func(t *testing.T, b []byte) {
		fates, err := parseFates(b)
		if err == nil && string(appendFates(nil, fates)) != string(b) {
			t.Fatalf("%x is not what it was read as: %v", b, fates)
		}
	})
}
