package cluster

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit/cluster/internal/possess"
)

// What happens to thousands of slots at once is one line, and what goes on is
// told again.
func TestNewsAreOneLineAChange(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	var n news
	lines := func() []string {
		defer log.Reset()
		return strings.Split(strings.TrimSpace(log.String()), "\n")
	}
	n.tell(logger, 0)
	for slot := range uint16(5000) {
		n.note(possess.Event{Kind: possess.TookOver, Slot: slot, Peer: 0xb})
		n.note(possess.Event{Kind: possess.Unprotected, Slot: slot, Peer: 0xc})
	}
	n.note(possess.Event{Kind: possess.TookOver, Slot: 5000, Peer: 0xa})
	n.note(possess.Event{Kind: possess.Alone, Slot: 5000})
	n.tell(logger, newsAfter-1)
	assert.Zero(t, log.Len(), "there may be more of the same")
	n.note(possess.Event{Kind: possess.Outranked, Slot: 7, Peer: 0xc})
	n.tell(logger, newsAfter)
	assert.Equal(t, []string{
		`level=WARN msg="slot take-over" peer=000000000000000a slots=1`,
		`level=WARN msg="slot take-over" peer=000000000000000b slots=5000`,
		`level=INFO msg=unprotected peer=000000000000000c slots=5000`,
		`level=INFO msg=unprotected peer=none slots=1`,
		`level=WARN msg="split suspected" peer=000000000000000c slots=1`,
	}, lines())
	n.tell(logger, 10*newsAfter)
	assert.Zero(t, log.Len(), "it was told")
	n.note(possess.Event{Kind: possess.Outranked, Slot: 7, Peer: 0xc})
	n.tell(logger, 11*newsAfter)
	assert.Equal(t, []string{`level=WARN msg="split suspected" peer=000000000000000c slots=1`}, lines())
	assert.EqualValues(t, 2, n.totals[possess.Outranked].Load())
	assert.EqualValues(t, 5001, n.totals[possess.TookOver].Load())
}
