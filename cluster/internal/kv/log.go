package kv

import (
	"context"
	"io"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// olricLog brings the lines that olric and its memberlist write into slog.
//
// Olric logs a line for every partition that moves and calls it INFO, and calls
// ERROR whatever did not work at once while members come and go. So its INFO is
// debug here, its WARN info and its ERROR a warning; and of lines that differ
// in their numbers only, one in ten seconds is let through and the others are
// counted.
type olricLog struct {
	to *slog.Logger

	mu   sync.Mutex // guards seen
	seen map[string]*seenLine
}

type seenLine struct {
	until   time.Time
	skipped int
}

const (
	logWindow   = 10 * time.Second
	maxLogLines = 256 // kinds of lines remembered
)

var _ io.Writer = (*olricLog)(nil)

// newOlricLog returns a logger for one olric. Olric changes the logger's
// output, so each needs its own.
func newOlricLog(to *slog.Logger) *log.Logger {
	return log.New(&olricLog{to: to, seen: make(map[string]*seenLine)}, "", 0)
}

func (l *olricLog) Write(p []byte) (int, error) {
	level, text := logLevel(string(p))
	ctx := context.Background()
	if !l.to.Enabled(ctx, level) {
		return len(p), nil
	}
	skipped, ok := l.pass(kindOfLine(text), time.Now())
	if !ok {
		return len(p), nil
	}
	var attrs []slog.Attr
	if skipped > 0 {
		attrs = append(attrs, slog.Int("similar", skipped))
	}
	l.to.LogAttrs(ctx, level, text, attrs...)
	return len(p), nil
}

func (l *olricLog) pass(kind string, now time.Time) (skipped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.seen[kind]
	if s == nil {
		if len(l.seen) >= maxLogLines {
			clear(l.seen)
		}
		l.seen[kind] = &seenLine{until: now.Add(logWindow)}
		return 0, true
	}
	if now.Before(s.until) {
		s.skipped++
		return 0, false
	}
	skipped, s.skipped, s.until = s.skipped, 0, now.Add(logWindow)
	return skipped, true
}

// logLevel reads the level in brackets that olric's and memberlist's lines have
// somewhere near their beginning, and returns the text without it.
func logLevel(line string) (slog.Level, string) {
	line = strings.TrimSpace(line)
	for _, l := range []struct {
		tag   string
		level slog.Level
	}{
		{"[ERROR]", slog.LevelWarn},
		{"[ERR]", slog.LevelWarn},
		{"[WARN]", slog.LevelInfo},
		{"[INFO]", slog.LevelDebug},
		{"[DEBUG]", slog.LevelDebug},
	} {
		if before, after, ok := strings.Cut(line, l.tag); ok {
			return l.level, strings.TrimSpace(before + strings.TrimSpace(after))
		}
	}
	return slog.LevelDebug, line
}

// kindOfLine is a line without its numbers.
func kindOfLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, text)
}
