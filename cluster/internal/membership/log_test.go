package membership

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// logged returns what the lines become, with the clock standing still.
func logged(l *logLines, lines ...string) string {
	out := new(logBuffer)
	l.log = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	if l.now == nil {
		l.now = func() time.Time { return time.Unix(1000, 0) }
	}
	for _, line := range lines {
		_, _ = l.Write([]byte(line + "\n"))
	}
	return out.String()
}

func TestLevelsOfLogLines(t *testing.T) {
	for line, want := range map[string]string{
		"[DEBUG] memberlist: Stream connection from=1.2.3.4:5": `level=DEBUG msg="memberlist: Stream connection from=1.2.3.4:5"`,
		"[INFO] memberlist: Suspect x has failed":              `level=DEBUG msg="memberlist: Suspect x has failed"`,
		"[WARN] memberlist: Something odd":                     `level=WARN msg="memberlist: Something odd"`,
		"[ERR] memberlist: Something wrong":                    `level=ERROR msg="memberlist: Something wrong"`,
		"[ERROR] memberlist: Failed to compress":               `level=ERROR msg="memberlist: Failed to compress"`,
		"Err: Could not set the deadline: x":                   `level=ERROR msg="memberlist: Could not set the deadline: x"`,
		"[ERR] memberlist: Push/Pull with x failed: timeout":   `level=DEBUG`,
		"[ERR] memberlist: Failed fallback TCP ping: timeout":  `level=DEBUG`,
		"[WARN] memberlist: Refuting a suspect message":        `level=WARN`,
		"no level at all": `level=INFO`,
		"":                `level=INFO`,
		"2026/01/02 15:04:05 [WARN] memberlist: With a date":                                        `level=WARN msg="memberlist: With a date"`,
		"[DEBUG] memberlist: failed to join 1.2.3.4:5: no installed keys could decrypt the message": "level=DEBUG",
		"[ERR] memberlist: Push/Pull with x failed: no installed keys could decrypt the message":    "level=DEBUG",
	} {
		got := logged(new(logLines), line)
		assert.Contains(t, got, want, line)
		assert.Equal(t, 1, strings.Count(got, "\n"), "one line becomes one: %s", got)
	}
}

func TestRefusalsAreWarnedOfOnceInAWhile(t *testing.T) {
	now := time.Unix(1000, 0)
	l := &logLines{now: func() time.Time { return now }}
	label := `[ERR] memberlist: discarding stream with unacceptable label "peerlimit/other": from=10.0.0.1:%d`
	warn := `level=WARN msg="a member with another secret or cluster name tried to join from 10.0.0.1" from=10.0.0.1:1 reason="it is of cluster \"other\""`
	assert.Contains(t, logged(l, fmt.Sprintf(label, 1)), warn)
	assert.NotContains(t, logged(l, fmt.Sprintf(label, 2)), "WARN", "the same host, the same reason")
	assert.Contains(t, logged(l, "[ERR] memberlist: failed to receive: no installed keys could decrypt the message from=10.0.0.1:3"),
		"its secret is another one")
	assert.Contains(t, logged(l, fmt.Sprintf(strings.ReplaceAll(label, "10.0.0.1", "10.0.0.2"), 4)), "level=WARN")
	now = now.Add(refusalEvery)
	assert.Contains(t, logged(l, fmt.Sprintf(label, 1)), warn)

	// Spoofed addresses neither fill the memory nor the log.
	var flood []string
	for i := range 1000 {
		flood = append(flood, fmt.Sprintf(`[ERR] memberlist: discarding packet with unacceptable label "": from=10.1.%d.%d:1`, i/250, i%250))
	}
	got := logged(l, flood...)
	assert.LessOrEqual(t, strings.Count(got, "level=WARN"), maxRefusals)
	assert.LessOrEqual(t, len(l.refusals), maxRefusals)
	assert.NotContains(t, got, "level=ERROR")
	assert.Contains(t, got, "it names no cluster")
	now = now.Add(refusalEvery)
	assert.Contains(t, logged(l, fmt.Sprintf(label, 1)), warn, "there is room again")
}

func TestReasonsOfRefusal(t *testing.T) {
	for text, want := range map[string]string{
		`discarding packet with unacceptable label "peerlimit/b\"c": x`:                   `it is of cluster "b\\\"c"`,
		`discarding packet with unacceptable label "": x`:                                 "it names no cluster",
		"failed to receive: encryption is configured but remote state is not encrypted x": "it has no secret",
		"failed to receive: remote state is encrypted and encryption is not configured x": "it has a secret and this member has none",
		"Decrypt packet failed: no installed keys could decrypt the message x":            "its secret is another one",
		"Decrypt packet failed: payload is too small to decrypt: 3 x":                     "it has no secret",
		"failed to receive: EOF x": "",
		"Got ping for unexpected node 'a@0123456789abcdef' from=1.2.3.4:5":                   "",
		"failed to receive and remove the stream label header: read tcp: i/o timeout from=x": "",
	} {
		assert.Equal(t, want, refusal(text), text)
	}
}

func TestAFloodOfLinesIsQuieted(t *testing.T) {
	now := time.Unix(1000, 0)
	l := &logLines{now: func() time.Time { return now }}
	flood := make([]string, 100)
	for i := range flood {
		flood[i] = "[ERR] memberlist: msg type (99) not supported from=10.0.0.1:1"
	}
	assert.Equal(t, 10, strings.Count(logged(l, flood...), "level=ERROR"))
	assert.Zero(t, strings.Count(logged(l, flood...), "level=ERROR"))
	now = now.Add(3 * time.Second)
	assert.Equal(t, 3, strings.Count(logged(l, flood...), "level=ERROR"))
	now = now.Add(time.Hour)
	assert.Equal(t, 10, strings.Count(logged(l, flood...), "level=ERROR"))
}

func TestStrangers(t *testing.T) {
	var got []string
	l := &logLines{stranger: func(a string) { got = append(got, a) }}
	logged(l,
		"[WARN] memberlist: Got ping for unexpected node 'a@0123456789abcdef' from=10.0.0.1:7946",
		"[WARN] memberlist: Got ping for unexpected node a@0123456789abcdef from=10.0.0.1:40123", // a stream: not its gossip port
		"[WARN] memberlist: Got ping for unexpected node 'b@0123456789abcdef' from=[::1]:7946",
	)
	assert.Equal(t, []string{"10.0.0.1:7946", "[::1]:7946"}, got)
}

// What strangers send ends up in these lines.
func FuzzLogLine(f *testing.F) {
	f.Add(`[ERR] memberlist: discarding stream with unacceptable label "a\"b": from=1.2.3.4:5`)
	f.Add("[WARN] memberlist: Got ping for unexpected node '' from=")
	f.Add("[")
	f.Fuzz(func(t *testing.T, line string) {
		got := logged(&logLines{stranger: func(string) {}}, line)
		if n := strings.Count(got, "\n"); n < 1 || n > 2 {
			t.Fatalf("%q became %d lines: %s", line, n, got)
		}
	})
}
