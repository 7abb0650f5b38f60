package membership

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// logLines takes memberlist's log, one line a Write, and passes it on to slog.
// Three kinds of line are news for which memberlist has no callback, so they
// are read here (the module's version is fixed, and tests see that these lines
// still come): a stream or packet of another cluster, and a ping meant for an
// earlier life at this address.
type logLines struct {
	log *slog.Logger
	now func() time.Time

	// stranger is told the gossip address of a member that pinged an earlier
	// life at this address.
	stranger func(addr string)

	mu       sync.Mutex // guards what follows
	all      limiter
	refusals map[string]time.Time // by host and reason
}

const (
	refusalEvery = 10 * time.Second
	maxRefusals  = 128
)

var (
	linePattern  = regexp.MustCompile(`^(?:\d{4}/\S+ \S+ )?\[?([A-Za-z]+)[\]:] *(?:memberlist: )?(.*)`)
	fromPattern  = regexp.MustCompile(`from=(\S+)`)
	labelPattern = regexp.MustCompile(`unacceptable label ("(?:[^"\\]|\\.)*")`)
)

// routine marks the beginnings of lines which say only that a member has gone
// or is going, or that a stranger talked nonsense; what matters of that is
// logged elsewhere.
var routine = []string{
	"Failed fallback TCP ping",
	"Failed to send",
	"Failed to push local state",
	"Failed to read remote state",
	"Failed to resolve",
	"Got ping for unexpected node",
	"Push/Pull with",
	"Refuting an alive message",
	"ignoring alive message",
	"failed to receive",
	"Error accepting TCP connection",
}

// incoming marks the beginnings of lines about packets and streams that another
// process sent of its own accord.
var incoming = []string{"failed to receive", "Decrypt packet failed", "discarding"}

func startsWith(text string, any []string) bool {
	return slices.ContainsFunc(any, func(s string) bool { return strings.HasPrefix(text, s) })
}

// Write implements io.Writer.
func (l *logLines) Write(b []byte) (int, error) {
	level, text := slog.LevelInfo, strings.TrimSpace(string(b))
	if m := linePattern.FindStringSubmatch(text); m != nil {
		level, text = levelOf(m[1]), m[2]
	}
	from := ""
	if m := fromPattern.FindStringSubmatch(text); m != nil {
		from = m[1]
	}
	if startsWith(text, incoming) && from != "" {
		if reason := refusal(text); reason != "" {
			l.refused(from, reason)
			level = slog.LevelDebug
		}
	}
	// The quote tells a packet, which comes from the sender's gossip address,
	// from a stream, which doesn't.
	if strings.HasPrefix(text, "Got ping for unexpected node '") && from != "" && l.stranger != nil {
		l.stranger(from)
	}
	if startsWith(text, routine) {
		level = slog.LevelDebug
	}
	if level >= slog.LevelInfo {
		// Some lines are at the command of whoever can reach the port.
		l.mu.Lock()
		ok := l.all.allow(l.now())
		l.mu.Unlock()
		if !ok {
			level = slog.LevelDebug
		}
	}
	l.log.Log(context.Background(), level, "memberlist: "+text)
	return len(b), nil
}

// levelOf maps memberlist's levels. Its INFO lines are details here: joins and
// losses are logged by the cluster itself.
func levelOf(word string) slog.Level {
	switch strings.ToUpper(word) {
	case "DEBUG", "INFO":
		return slog.LevelDebug
	case "WARN":
		return slog.LevelWarn
	case "ERR", "ERROR":
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// refusal returns why the line says that a stream or packet was refused, or "".
func refusal(text string) string {
	switch {
	case strings.Contains(text, "with unacceptable label"):
		other := labelPattern.FindStringSubmatch(text)
		if other == nil || other[1] == `""` {
			return "it names no cluster"
		}
		name := strings.TrimPrefix(strings.Trim(other[1], `"`), label(""))
		return fmt.Sprintf("it is of cluster %.100q", name)
	case strings.Contains(text, "no installed keys could decrypt"):
		return "its secret is another one"
	case strings.Contains(text, "encryption is configured but remote state is not encrypted"),
		strings.Contains(text, "unsupported encryption version"),
		strings.Contains(text, "payload is too small to decrypt"):
		return "it has no secret"
	case strings.Contains(text, "remote state is encrypted and encryption is not configured"):
		return "it has a secret and this member has none"
	default:
		return ""
	}
}

// refused warns that somebody was turned away, once in a while for each host.
func (l *logLines) refused(from, reason string) {
	host, _, err := net.SplitHostPort(from)
	if err != nil {
		host = from
	}
	key, now := host+" "+reason, l.now()
	l.mu.Lock()
	last, seen := l.refusals[key]
	say := !seen || now.Sub(last) >= refusalEvery
	if say && !seen && len(l.refusals) >= maxRefusals {
		for k, at := range l.refusals {
			if now.Sub(at) >= refusalEvery {
				delete(l.refusals, k)
			}
		}
		say = len(l.refusals) < maxRefusals
	}
	if say {
		if l.refusals == nil {
			l.refusals = make(map[string]time.Time)
		}
		l.refusals[key] = now
	}
	l.mu.Unlock()
	if say {
		l.log.Warn("a member with another secret or cluster name tried to join from "+host, "from", from, "reason", reason)
	}
}

// limiter lets ten lines through at once and one a second in the long run. Its
// user locks.
type limiter struct{ full time.Time }

func (l *limiter) allow(now time.Time) bool {
	const every, burst = time.Second, 10
	if l.full.Before(now) {
		l.full = now
	}
	if l.full.Sub(now) > (burst-1)*every {
		return false
	}
	l.full = l.full.Add(every)
	return true
}
