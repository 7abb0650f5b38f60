package cluster

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRecentAnswers(t *testing.T) {
	r := new(recent)
	_, ok := r.get(7)
	require.False(t, ok)
	r.put(7, []byte("seven"))
	got, ok := r.get(7)
	require.True(t, ok)
	require.Equal(t, "seven", string(got))
	r.put(8, bytes.Repeat([]byte("x"), 41))
	_, ok = r.get(8)
	require.False(t, ok, "too long to keep")
	for i := range uint64(recentKept) {
		r.put(100+i, nil)
	}
	_, ok = r.get(7)
	require.False(t, ok, "others came after it")
}

func TestWhatWaitsForTheBackupIsKnown(t *testing.T) {
	r := new(recent)
	require.False(t, r.waits(7))
	r.wait(7)
	r.wait(8)
	require.True(t, r.waits(7))
	r.waited(7)
	require.False(t, r.waits(7))
	require.True(t, r.waits(8))
}
