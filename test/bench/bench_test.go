package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == memberCommand { // started by a test below
		if err := runMember(context.Background(), os.Args[2:]); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

func TestPercentilesAreWithinSixPercent(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h histogram
	var exact []time.Duration
	for range 100_000 {
		d := time.Duration(random.ExpFloat64() * float64(50*time.Microsecond))
		exact = append(exact, d)
		h.add(d)
	}
	slices.Sort(exact)
	for _, share := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := exact[min(int(share*float64(len(exact))), len(exact)-1)]
		got := h.percentile(share)
		if got < want || float64(got) > 1.0626*float64(want)+1 {
			t.Errorf("percentile %v is %v, want %v", share, got, want)
		}
	}
}

func TestEveryDurationIsInItsBucket(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, 1, 15, 16, 17, 31, 32, 33, 1000, time.Microsecond, time.Second, 1<<63 - 1} {
		b := bucketOf(d)
		if max(d, 0) > boundOf(b) || b > 0 && max(d, 0) <= boundOf(b-1) {
			t.Errorf("%d is in bucket %d, from %d to %d", d, b, boundOf(b-1)+1, boundOf(b))
		}
	}
}

func TestBadFlags(t *testing.T) {
	for _, args := range []string{"-callers 0", "-callers x", "-keys 0", "-duration 1ms", "-nonsense"} {
		if _, err := parse(strings.Fields(args), &bytes.Buffer{}); err == nil {
			t.Errorf("%s is accepted", args)
		}
	}
}

// All contenders that are here, for a moment.
func TestARun(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	err := run(ctx, strings.Fields("-json -duration 100ms -callers 1,8 -keys 100"), &out, &errs)
	if err != nil {
		t.Fatal(err, errs.String())
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.InProcess) == 0 {
		t.Error("nothing was measured in process")
	}
	if want := 2 * (len(contenders()) - len(r.Skipped)); len(r.Calls) != want {
		t.Errorf("%d measurements, want %d", len(r.Calls), want)
	}
	for _, m := range r.Calls {
		if m.Decisions == 0 || m.P50 == 0 || m.P99 < m.P50 || m.Slowest < m.P99 {
			t.Errorf("not plausible: %+v", m)
		}
		if m.Errors > 0 {
			t.Errorf("%s with %d callers: %d errors: %v", m.Name, m.Callers, m.Errors, errors.New(m.FirstErr))
		}
	}
	var table bytes.Buffer
	if err := r.write(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", table.String())
}
