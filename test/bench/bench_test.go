package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

func TestMain(m *testing.M) {
	if again, err := runAs(context.Background(), os.Args[1:]); again { // started by a test below
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	clustertest.Main(m)
}

// measured runs the program and reads its JSON.
func measured(t *testing.T, args string) (r report, raw map[string]any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, progress bytes.Buffer
	if err := run(ctx, strings.Fields(args), &out, &progress); err != nil {
		t.Fatal(err, progress.String())
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &raw); err != nil {
		t.Fatal(err)
	}
	return r, raw
}

func (r *report) row(t *testing.T, contender, path string, callers int) row {
	t.Helper()
	i := slices.IndexFunc(r.Rows, func(one row) bool { return one.key() == rowKey{contender, path, callers} })
	if i < 0 {
		t.Fatalf("no row of %s on %s with %d callers among %d", contender, path, callers, len(r.Rows))
	}
	return r.Rows[i]
}

const tiny = "-json -duration 10ms -keys 50 -zipf-keys 500 "

func TestJSONHasItsShape(t *testing.T) {
	r, raw := measured(t, tiny+"-quick -only go-limiter,httprate,bare")
	if r.Machine.Cores < 1 || r.Machine.Go == "" {
		t.Errorf("machine: %+v", r.Machine)
	}
	rows := raw["rows"].([]any)
	for _, one := range rows {
		for _, field := range []string{"contender", "path", "callers", "per_second", "p50_us", "p99_us", "cpu_us", "errors", "admitted_over_limit"} {
			if _, ok := one.(map[string]any)[field]; !ok {
				t.Fatalf("%v has no %s", one, field)
			}
		}
	}
	// holder with 1 and 64 callers, five paths with 64, and the middleware, which
	// the bare handler has too.
	if len(rows) != 2*8+1 {
		t.Errorf("%d rows, want 17", len(rows))
	}
	for _, one := range r.Rows {
		if one.PerSecond <= 0 || one.P99 < one.P50 || one.P999 < one.P99 || one.Calls == 0 || one.Rounds != 1 {
			t.Errorf("not plausible: %+v", one)
		}
		if one.Errors > 0 || one.Over > 0 {
			t.Errorf("in one process nothing fails or is inexact: %+v", one)
		}
	}
	if m := r.row(t, "httprate", middlewarePath, 1); m.Allocs == nil || *m.Allocs < 1 {
		t.Errorf("httprate's middleware: %+v", m)
	}
	if b := r.row(t, "bare", middlewarePath, 1); b.Allocs == nil || *b.Allocs != 2 {
		t.Errorf("the bare handler: %+v", b)
	}
	if h := r.row(t, "go-limiter", "holder", 64); h.Allocs == nil || *h.Allocs != 0 {
		t.Errorf("go-limiter's decision: %+v", h)
	}
}

func TestRoundsAreRepeatedAndCompared(t *testing.T) {
	r, _ := measured(t, tiny+"-only peerlimit,go-limiter -paths holder,denied,remote,uniform -rounds 2 -callers 4")
	for _, one := range r.Rows {
		if one.Rounds != 2 {
			t.Errorf("%d rounds: %+v", one.Rounds, one)
		}
		if one.Contender == "peerlimit" && one.TakeOvers == 0 && one.Over > 0 {
			t.Errorf("beyond the limit: %+v", one)
		}
	}
	r.row(t, "peerlimit", "remote", 4)
	if len(r.Ratios) != 4 { // holder with 1 and 64 callers, denied, uniform
		t.Errorf("ratios: %+v", r.Ratios)
	}
	for _, one := range r.Ratios {
		if one.Contender != "peerlimit" || one.Over != "go-limiter" || one.Lowest <= 0 || one.Highest < one.Median || one.Median < one.Lowest {
			t.Errorf("ratio: %+v", one)
		}
	}
}

func TestServersAndDaemons(t *testing.T) {
	r, _ := measured(t, tiny+"-only redis-goredis,redis-rueidis,redis_rate,gubernator-batching -paths remote,denied,auth,cache,cache-set -rounds 1 -callers 2")
	if missing := (&redisServer{}).missing(); missing != "" {
		if len(r.Skipped) != 3 {
			t.Errorf("skipped: %q", r.Skipped)
		}
		t.Skip(missing)
	}
	for _, want := range []rowKey{
		{"redis-goredis", "remote", 2}, {"redis-goredis", "denied", 2}, {"redis-goredis", "auth", 2},
		{"redis-goredis", "cache", 1}, {"redis-goredis", "cache-set", 16},
		{"redis-rueidis", "remote", 2}, {"redis-rueidis", "denied", 2}, {"redis-rueidis", "auth", 2},
		{"redis_rate", "remote", 2}, {"redis_rate", "denied", 2},
		{"gubernator-batching", "remote", 2}, {"gubernator-batching", "denied", 2},
	} {
		one := r.row(t, want.contender, want.path, want.callers)
		if one.Errors > 0 || one.Calls == 0 {
			t.Errorf("%+v", one)
		}
		if strings.HasPrefix(one.Contender, "redis") && one.Over > 0 {
			t.Errorf("Redis is exact: %+v", one)
		}
	}
}

func TestMemoryOfAProcess(t *testing.T) {
	m, err := fillChild(t.Context(), filling{"go-limiter", 20_000})
	if err != nil {
		t.Fatal(err)
	}
	if m.KeyBytes != 38 || m.PerEntry < 38 || m.PerEntry > 1000 || m.Resident == 0 && fieldOf("/proc/self/status", "VmRSS:") > 0 {
		t.Errorf("%+v", m)
	}
}

func TestOptions(t *testing.T) {
	for _, args := range []string{
		"-callers 0", "-callers x", "-keys 0", "-zipf-keys 0", "-rounds 101", "-duration 1ms", "-nonsense", "stray",
		"-only nobody", "-paths nowhere", "-memory -flood", "-members 1", "-members 3,100",
	} {
		if _, err := parse(strings.Fields(args), &bytes.Buffer{}); err == nil {
			t.Errorf("%s is accepted", args)
		}
	}
	for args, want := range map[string]outputFile{
		"-quick":             {},
		"-json":              {wanted: true},
		"--json --quick":     {wanted: true},
		"--json out.json":    {wanted: true, file: "out.json"},
		"-json=out.json":     {wanted: true, file: "out.json"},
		"-json=- -callers 3": {wanted: true},
	} {
		o, err := parse(strings.Fields(args), &bytes.Buffer{})
		if err != nil || o.json != want {
			t.Errorf("%s: %+v, %v", args, o.json, err)
		}
	}
}

func TestFaultsOfOtherProcessesAreErrors(t *testing.T) {
	c, err := startSelf(t.Context(), fillCommand, filling{"nobody", 1})
	if err == nil {
		c.kill()
		t.Fatal("a fault of the other process is no error here")
	}
	if !strings.Contains(err.Error(), `no contender "nobody"`) {
		t.Error(err)
	}
}
