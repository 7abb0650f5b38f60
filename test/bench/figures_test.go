package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

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

// The probability of rank k is proportional to (1+k) to the power -1.1.
func TestZipf(t *testing.T) {
	const n = 10_000
	var sum float64
	for k := range n {
		sum += math.Pow(float64(1+k), -zipfExponent)
	}
	counts := make([]int, n)
	for _, k := range draws(n, true) {
		counts[k]++ // panics beyond n
	}
	for _, k := range []int{0, 1, 2, 9, 99} {
		want := drawn * math.Pow(float64(1+k), -zipfExponent) / sum
		if got := float64(counts[k]); math.Abs(got-want) > 6*math.Sqrt(want) {
			t.Errorf("rank %d was drawn %.0f times, want %.0f", k, got, want)
		}
	}
}

func TestUniform(t *testing.T) {
	const n = 100
	counts := make([]int, n)
	for _, k := range draws(n, false) {
		counts[k]++
	}
	for k, got := range counts {
		if want := float64(drawn) / n; math.Abs(float64(got)-want) > 6*math.Sqrt(want) {
			t.Errorf("key %d was drawn %d times, want %.0f", k, got, want)
		}
	}
}

func TestNamesDiffer(t *testing.T) {
	p := path{prefix: "p:"}
	for _, names := range [][]string{accounts(100_000), p.names(100_000)} {
		seen := make(map[string]bool)
		for _, name := range names {
			seen[name] = true
		}
		if len(seen) != 100_000 {
			t.Errorf("%d of 100000 names, such as %s, differ", len(seen), names[1])
		}
	}
}

func TestRowsAreMediansAndRatiosAreOfRounds(t *testing.T) {
	var r report
	allocs := 2.0
	for round, perSecond := range []float64{300, 100, 200} {
		r.add(round, []row{
			{Contender: "peerlimit", Path: "p", Callers: 1, PerSecond: perSecond, P50: perSecond, Errors: 1, Over: int64(round), Allocs: &allocs},
			{Contender: "other", Path: "p", Callers: 1, PerSecond: 100},
		})
	}
	r.add(0, []row{{Contender: "other", Path: "q", Callers: 1, PerSecond: 5}})
	r.finish([]string{"peerlimit", "other"}, []string{"p", "q"})
	if len(r.Rows) != 3 || r.Rows[0].Contender != "peerlimit" || r.Rows[2].Path != "q" {
		t.Fatalf("%+v", r.Rows)
	}
	one := r.Rows[0]
	if one.PerSecond != 200 || one.P50 != 200 || one.Errors != 3 || one.Over != 2 || one.Spread != 1 || one.Rounds != 3 || *one.Allocs != 2 {
		t.Errorf("%+v", one)
	}
	want := ratio{Contender: "peerlimit", Over: "other", Path: "p", Callers: 1, Median: 2, Lowest: 1, Highest: 3}
	if len(r.Ratios) != 1 || r.Ratios[0] != want {
		t.Errorf("%+v", r.Ratios)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		sorted []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{1, 2}, 1.5}, {[]float64{1, 5, 9}, 5}} {
		if got := median(c.sorted); got != c.want {
			t.Errorf("%v: %v", c.sorted, got)
		}
	}
}

func TestRounded(t *testing.T) {
	for f, want := range map[float64]float64{0: 0, 1234567: 1235000, 0.00123456: 0.001235, math.Inf(1): 0, -98765: -98770} {
		if got := rounded(f); math.Abs(got-want) > 1e-12*math.Abs(want) {
			t.Errorf("%v is rounded to %v, want %v", f, got, want)
		}
	}
}

func TestBeyond(t *testing.T) {
	if got := beyond([]int64{0, 5, 7, 9}, 5); got != 6 {
		t.Error(got)
	}
	j := job{refills: true}
	if got := j.regained(rule{Limit: 100, Period: time.Second}, 155*time.Millisecond); got != 15 {
		t.Error(got)
	}
	if got := (&job{}).regained(rule{Limit: 100, Period: time.Second}, time.Second); got != 0 {
		t.Error(got)
	}
}

func TestParseStat(t *testing.T) {
	line := "42 (a name) with) S 1 42 42 0 -1 4194560 1 0 0 0 130 27 0 0 20 0 8 0 1 2 3"
	if got := parseStat([]byte(line)); got != 1570*time.Millisecond {
		t.Error(got)
	}
	for _, bad := range []string{"", "1 (x) S 1", ")"} {
		if got := parseStat([]byte(bad)); got != 0 {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestPlotIsWellFormed(t *testing.T) {
	r := report{Machine: machine{CPU: "<one> & other"}, Rows: []row{
		{Contender: "peerlimit", Path: "hot", Callers: 1, PerSecond: 1e7},
		{Contender: "a<b>&\"c\"", Path: "hot", Callers: 1, PerSecond: 0, Errors: 3, Over: 2},
		{Contender: "peerlimit", Path: "hot", Callers: 64, PerSecond: 1e12},
	}}
	var out bytes.Buffer
	if err := r.writePlot(&out); err != nil {
		t.Fatal(err)
	}
	elements := make(map[string]int)
	var text strings.Builder
	decoder := xml.NewDecoder(&out)
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			elements[token.Name.Local]++
		case xml.CharData:
			text.Write(token)
		}
	}
	if elements["svg"] != 1 || elements["rect"] != 1+3 || elements["text"] != 1+2+2*3 {
		t.Errorf("elements: %v", elements)
	}
	for _, want := range []string{"<one> & other", `a<b>&"c"`, "0, 2 over the limit, 3 errors", "hot, 64 callers"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in the plot", want)
		}
	}
	if barEnd(1e12) != barEnd(1e9) || barEnd(0) != labelWidth || barEnd(1e5) <= barEnd(1e4) {
		t.Error("bars are not to scale")
	}
}

func TestTables(t *testing.T) {
	allocs := 0.0
	r := report{
		Rows:    []row{{Contender: "peerlimit", Path: "hot", Callers: 64, PerSecond: 1234567, P50: 0.08, CPU: 12345, Spread: 0.1, Allocs: &allocs, First: "broken"}},
		Ratios:  []ratio{{Contender: "peerlimit", Over: "redis", Path: "hot", Callers: 64, Median: 123.4, Lowest: 1, Highest: 1000}},
		Memory:  []memory{{Contender: "redis", Keys: 1, KeyBytes: 38, PerEntry: 129, BeyondKey: 91, Resident: 1 << 20}},
		Floods:  []flood{{Contender: "peerlimit", PerSecond: 77, Keys: 7}},
		Scales:  []scale{{Members: 30, Load: hotLoad, PerSecond: 5}},
		Skipped: []string{"redis_rate: there is none"},
	}
	var out bytes.Buffer
	if err := r.writeTables(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1234567", " 5 ", "0.08", "12345", "123", "first error: broken", "129.0", "91.0", "1.0", "77", hotLoad + ", not settled", "skipped redis_rate"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the tables:\n%s", want, out.String())
		}
	}
}

func TestWhereMachineKeepsItsOneByte(t *testing.T) {
	var m whereMachine
	if s, err := m.ParseState(m.AppendState(nil, 1, 0), 0); s != 1 || err != nil {
		t.Error(s, err)
	}
	for _, bad := range [][]byte{nil, {1, 2}} {
		if _, err := m.ParseOp(bad); err == nil {
			t.Errorf("%v is accepted", bad)
		}
		if _, err := m.ParseResult(bad); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

// Half the time in front of a handler that takes as long as both together.
func TestRatiosOfMiddlewareWithoutTheHandler(t *testing.T) {
	var r report
	us := func(contender string, us float64) row {
		return row{Contender: contender, Path: middlewarePath, Callers: 1, PerSecond: 1e6 / us}
	}
	r.add(1, []row{us("peerlimit", 4), us("go-limiter", 5), us("bare", 3)})
	r.finish([]string{"peerlimit", "go-limiter", "bare"}, []string{middlewarePath})
	got := map[string]float64{}
	for _, one := range r.Ratios {
		got[one.Path+" "+one.Over] = one.Median
	}
	want := map[string]float64{"middleware go-limiter": 1.25, "middleware less bare go-limiter": 2, "middleware bare": 0.75}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
