package ratelimit

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// lines returns those with a message, as "message policy reason".
func (l *logBuffer) lines(t *testing.T, msg string) (all []string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		if entry["msg"] == msg {
			all = append(all, entry["policy"].(string)+" "+entry["reason"].(string))
		}
	}
	return all
}

// observed collects observations.
type observed struct {
	mu  sync.Mutex
	all []Observation
}

func (o *observed) Decided(_ context.Context, ob Observation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, ob)
}

func (o *observed) last() Observation {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.all) == 0 {
		return Observation{}
	}
	return o.all[len(o.all)-1]
}

// undecided returns a limiter on a member that may not decide: it is alone, and
// two are asked for.
func undecided(t *testing.T, cfg Config) (*Limiter, *clustertest.Cluster, *logBuffer, *observed) {
	t.Helper()
	c := clustertest.Start(t, 1, patient, func(_ int, cfg *cluster.Config) { cfg.MinMembers = 2 })
	log, obs := new(logBuffer), new(observed)
	cfg.Cluster, cfg.Observer = c.Nodes[0], obs
	cfg.Logger = slog.New(slog.NewJSONHandler(log, nil))
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, c, log, obs
}

func TestFailureModes(t *testing.T) {
	l, c, log, obs := undecided(t, Config{})
	l.members = func() int { return 4 }
	ctx := context.Background()
	with := func(name string, mode FailureMode) Policy {
		p := PerDay(name, 8)
		p.OnUnavailable = mode
		return p
	}
	open, closed, local := with("open", 0), with("closed", FailClosed), with("local", FailLocal)

	for range 3 {
		d, err := l.AllowN(ctx, open, "k", 5)
		if err != nil || !d.Allowed || !d.Degraded || d.Reason != ReasonUnavailable || d.Limit != 8 || d.Remaining != 8 {
			t.Fatalf("open: %+v, %v", d, err)
		}
	}
	if o := obs.last(); o.Outcome != OutcomeDegradedAllowed || o.NearLimit || o.Cost != 5 {
		t.Errorf("%+v", o)
	}
	d, err := l.Allow(ctx, closed, "k")
	if err != nil || d.Allowed || !d.Degraded || d.RetryAfter != time.Second {
		t.Fatalf("closed: %+v, %v", d, err)
	}
	if o := obs.last(); o.Outcome != OutcomeDegradedDenied {
		t.Errorf("%+v", o)
	}
	for i, want := range []bool{true, true, false} { // 8 over 4 members
		d, err := l.Allow(ctx, local, "k")
		if err != nil || d.Allowed != want || !d.Degraded || d.Limit != 2 {
			t.Fatalf("local %d: %+v, %v", i, d, err)
		}
	}
	if err := l.Reset(ctx, local, "k"); err == nil {
		t.Error("a reset that nobody could do")
	}
	if d, _ := l.Allow(ctx, local, "k"); !d.Allowed {
		t.Error("a reset does not reset what this member counts by itself")
	}
	if err := l.Limit(ctx, closed, "k"); err == nil || !strings.Contains(err.Error(), "denied while degraded: unavailable") {
		t.Errorf("%v", err)
	}
	shadow := closed
	shadow.Shadow = true
	if d, _ := l.Allow(ctx, shadow, "k"); !d.Allowed || !d.Degraded {
		t.Errorf("shadow: %+v", d)
	}

	// Several at once, each by its own mode.
	all, err := l.AllowAll(ctx, Check{Policy: open, Key: "k", Cost: 1}, Check{Policy: closed, Key: "k", Cost: 1})
	if err != nil || all.Allowed || !all.Decisions[0].Degraded || !all.Decisions[1].Degraded {
		t.Errorf("%+v, %v", all, err)
	}
	if all, err = l.AllowAll(ctx, Check{Policy: open, Key: "k", Cost: 1}, Check{Policy: open, Key: "l", Cost: 1}); err != nil || !all.Allowed {
		t.Errorf("%+v, %v", all, err)
	}

	// Places: open lets in without one, local has its own.
	busy := InFlight("busy", 4, time.Minute)
	if place, d, err := l.Acquire(ctx, busy, "k"); place != nil || !d.Allowed || !d.Degraded || err != nil {
		t.Errorf("%+v, %v", d, err)
	}
	busy.OnUnavailable = FailLocal
	place, d, err := l.Acquire(ctx, busy, "k")
	if place == nil || !d.Allowed || err != nil {
		t.Fatalf("%+v, %v", d, err)
	}
	if _, d, _ := l.Acquire(ctx, busy, "k"); d.Allowed {
		t.Errorf("a second of one: %+v", d)
	}
	if err := place.Release(ctx); err != nil {
		t.Error(err)
	}
	if _, d, _ := l.Acquire(ctx, busy, "k"); !d.Allowed {
		t.Errorf("after its release: %+v", d)
	}

	// The middleware: fail-closed is 503, and a limit that this member enforces
	// by itself is 429.
	for _, h := range []struct {
		policy Policy
		want   int
	}{{open, 200}, {closed, 503}, {with("local2", FailLocal), 200}} {
		w := httptest.NewRecorder()
		l.Handler(ok, By(h.policy, Everyone())).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != h.want {
			t.Errorf("%s: %d %s", h.policy.Name, w.Code, w.Body)
		}
		if h.want == 503 && (w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), ProblemReducedCapacity) ||
			w.Header().Get("RateLimit") != "") {
			t.Errorf("%v %s", w.Header(), w.Body)
		}
	}
	for range 3 {
		w := httptest.NewRecorder()
		l.Handler(ok, By(with("local3", FailLocal), Everyone()), By(open, Everyone())).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != 200 && w.Code != 429 {
			t.Errorf("local: %d %s", w.Code, w.Body)
		}
	}

	// One line a policy, however many decisions.
	lines := strings.Join(log.lines(t, "limiter degraded"), ", ")
	if lines != "open unavailable, closed unavailable, local unavailable, busy unavailable, local2 unavailable, local3 unavailable" {
		t.Errorf("degraded: %s", lines)
	}
	if n := l.Stats().Degraded; n != 6 {
		t.Errorf("%d policies are degraded", n)
	}

	// A second member comes: decisions are ordinary again, and one line says so.
	second, err := New(Config{Cluster: c.Add()})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	until(t, func() bool {
		d, err := l.Allow(ctx, closed, "k")
		return err == nil && d.Allowed && !d.Degraded
	})
	until(t, func() bool {
		l.Allow(ctx, closed, "k2")
		return len(log.lines(t, "limiter recovered")) > 0
	})
	if lines := log.lines(t, "limiter recovered"); len(lines) != 1 || lines[0] != "closed unavailable" {
		t.Errorf("recovered: %v", lines)
	}
}

// until waits for something that other goroutines bring about.
func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 20 s")
		}
	}
}

// A caller who gives up is told so; it is no reason to degrade.
func TestCallersContext(t *testing.T) {
	l, _, log, _ := undecided(t, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d, err := l.Allow(ctx, PerDay("p", 8), "k")
	if err == nil && !d.Degraded {
		t.Errorf("%+v", d)
	}
	if err != nil && !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("%v", err)
	}
	if err != nil && len(log.lines(t, "limiter degraded")) != 0 {
		t.Error("the log says degraded")
	}
}

// The members that a local limit is divided by are the most that were seen: a
// side of a split does not take the other's share when it drops off the list.
func TestLocalShareDoesNotGrow(t *testing.T) {
	g := degradation{logger: slog.New(slog.DiscardHandler)}
	for i, c := range []struct{ members, want int }{{3, 3}, {1, 3}, {5, 5}, {2, 5}} {
		if got := g.enter("p", ReasonUnavailable, FailLocal, c.members, nil); got != c.want {
			t.Errorf("%d: divided by %d, want %d", i, got, c.want)
		}
	}
}

// Some keys' holders may answer while others' do not: that is no recovery.
func TestRecoveryTakesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(logBuffer)
		g := degradation{logger: slog.New(slog.NewJSONHandler(log, nil))}
		for range 30 {
			g.enter("p", ReasonUnavailable, FailOpen, 1, nil)
			g.leave("p")
			g.leave("another")
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(log.lines(t, "limiter degraded")); n != 1 {
			t.Errorf("%d lines", n)
		}
		time.Sleep(899 * time.Millisecond)
		g.leave("p")
		if n := len(log.lines(t, "limiter recovered")); n != 0 {
			t.Error("recovered within a second")
		}
		time.Sleep(time.Millisecond)
		g.leave("p")
		g.leave("p")
		if n := len(log.lines(t, "limiter recovered")); n != 1 || g.count.Load() != 0 {
			t.Errorf("%d lines, %d degraded", n, g.count.Load())
		}
		g.enter("p", ReasonUnavailable, FailOpen, 1, nil)
		g.enter("p", ReasonBusy, FailOpen, 1, nil)
		if lines := log.lines(t, "limiter degraded"); len(lines) != 3 || lines[2] != "p busy" {
			t.Errorf("%q", lines)
		}
	})
}
