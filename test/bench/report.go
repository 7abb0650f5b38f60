package main

import (
	"cmp"
	"encoding/json"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// row is one contender on one path with one number of callers: the median of
// all rounds. Times are in microseconds.
type row struct {
	Contender string  `json:"contender"`
	Path      string  `json:"path"`
	Callers   int     `json:"callers"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	P999      float64 `json:"p999_us"`
	CPU       float64 `json:"cpu_us"` // user and system of all processes that take part, the load among them, a call
	Errors    int64   `json:"errors"` // of all rounds
	// Over is how many calls were allowed beyond the limit, in the worst round.
	Over int64 `json:"admitted_over_limit"`
	// TakeOvers is how many slots members took over from others that fell
	// silent, in all rounds. Each may let one too many through, or 1 %.
	TakeOvers int64    `json:"takeovers,omitempty"`
	Allocs    *float64 `json:"allocs,omitempty"` // a call
	Calls     int64    `json:"calls"`
	// Spread is the difference of the fastest and the slowest round, as a share
	// of the median.
	Spread float64 `json:"spread"`
	Rounds int     `json:"rounds"`
	First  string  `json:"first_error,omitempty"`
}

// ratio says how many times as many calls a second one contender makes as
// another, on the same path with as many callers, in the same round.
type ratio struct {
	Contender string  `json:"contender"`
	Over      string  `json:"over"`
	Path      string  `json:"path"`
	Callers   int     `json:"callers"`
	Median    float64 `json:"median"`
	Lowest    float64 `json:"lowest"`
	Highest   float64 `json:"highest"`
}

// report is all that a run measured.
type report struct {
	Machine machine  `json:"machine"`
	Options string   `json:"options"`
	Rows    []row    `json:"rows"`
	Ratios  []ratio  `json:"ratios,omitempty"`
	Memory  []memory `json:"memory,omitempty"`
	Floods  []flood  `json:"flood,omitempty"`
	Scales  []scale  `json:"scale,omitempty"`
	Skipped []string `json:"skipped,omitempty"`

	byRound map[rowKey]map[int]row
}

// rowKey is what rows of several rounds have in common.
type rowKey struct {
	contender, path string
	callers         int
}

func (r *row) key() rowKey { return rowKey{r.Contender, r.Path, r.Callers} }

func newRow(contender, path string, callers int, o outcome) row {
	us := func(d time.Duration) float64 { return rounded(float64(d) / 1000) }
	r := row{
		Contender: contender, Path: path, Callers: callers, Calls: o.calls, Errors: o.failed,
		PerSecond: rounded(float64(o.calls) / o.took.Seconds()),
		P50:       us(o.times.percentile(0.5)), P99: us(o.times.percentile(0.99)), P999: us(o.times.percentile(0.999)),
		CPU: rounded(float64(o.cpu) / float64(max(o.calls, 1)) / 1000),
	}
	if o.first != nil {
		r.First = o.first.Error()
	}
	return r
}

// rounded keeps four digits: there is no more in a measurement.
func rounded(f float64) float64 {
	if f == 0 || math.IsInf(f, 0) || math.IsNaN(f) {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(f))))
	return math.Round(f*scale) / scale
}

// add takes the rows of one contender in one round.
func (r *report) add(round int, rows []row) {
	if r.byRound == nil {
		r.byRound = make(map[rowKey]map[int]row)
	}
	for _, one := range rows {
		if r.byRound[one.key()] == nil {
			r.byRound[one.key()] = make(map[int]row)
		}
		r.byRound[one.key()][round] = one
	}
}

// finish joins the rounds. Rows are in the order of contenders and paths.
func (r *report) finish(contenders, paths []string) {
	for _, rounds := range r.byRound {
		r.Rows = append(r.Rows, joined(rounds))
	}
	order := func(a, b rowKey) int {
		return cmp.Or(
			cmp.Compare(slices.Index(paths, a.path), slices.Index(paths, b.path)),
			cmp.Compare(a.callers, b.callers),
			cmp.Compare(slices.Index(contenders, a.contender), slices.Index(contenders, b.contender)),
		)
	}
	slices.SortFunc(r.Rows, func(a, b row) int { return order(a.key(), b.key()) })
	for _, ours := range []string{"peerlimit", "peerlimit-http"} {
		for _, theirs := range r.Rows {
			if strings.HasPrefix(theirs.Contender, "peerlimit") {
				continue
			}
			mine := rowKey{ours, theirs.Path, theirs.Callers}
			if one, ok := compared(r.byRound[mine], r.byRound[theirs.key()]); ok {
				one.Contender, one.Over, one.Path, one.Callers = ours, theirs.Contender, theirs.Path, theirs.Callers
				r.Ratios = append(r.Ratios, one)
			}
			if theirs.Path != middlewarePath {
				continue
			}
			handler := r.byRound[rowKey{bare{}.name(), middlewarePath, theirs.Callers}]
			if one, ok := compared(without(handler, r.byRound[mine]), without(handler, r.byRound[theirs.key()])); ok {
				one.Contender, one.Over, one.Path, one.Callers = ours, theirs.Contender, middlewarePath+" less bare", theirs.Callers
				r.Ratios = append(r.Ratios, one)
			}
		}
	}
}

// joined is the median row of several rounds.
func joined(rounds map[int]row) (all row) {
	pick := func(field func(*row) float64) (values []float64) {
		for _, one := range rounds {
			values = append(values, field(&one))
		}
		slices.Sort(values)
		return values
	}
	for _, one := range rounds {
		all.Contender, all.Path, all.Callers = one.Contender, one.Path, one.Callers
		all.Errors += one.Errors
		all.TakeOvers += one.TakeOvers
		all.Calls += one.Calls
		all.Over = max(all.Over, one.Over)
		all.First = cmp.Or(all.First, one.First)
		if one.Allocs != nil {
			allocs := *one.Allocs
			if all.Allocs != nil {
				allocs = max(allocs, *all.Allocs)
			}
			all.Allocs = &allocs
		}
	}
	perSecond := pick(func(r *row) float64 { return r.PerSecond })
	all.PerSecond = median(perSecond)
	if all.PerSecond > 0 {
		all.Spread = rounded((perSecond[len(perSecond)-1] - perSecond[0]) / all.PerSecond)
	}
	all.P50 = median(pick(func(r *row) float64 { return r.P50 }))
	all.P99 = median(pick(func(r *row) float64 { return r.P99 }))
	all.P999 = median(pick(func(r *row) float64 { return r.P999 }))
	all.CPU = median(pick(func(r *row) float64 { return r.CPU }))
	all.Rounds = len(rounds)
	return all
}

// compared divides the throughput of two rows, round by round.
func compared(mine, theirs map[int]row) (ratio, bool) {
	var all []float64
	for round, one := range mine {
		if other, ok := theirs[round]; ok && other.PerSecond > 0 {
			all = append(all, one.PerSecond/other.PerSecond)
		}
	}
	if len(all) == 0 {
		return ratio{}, false
	}
	slices.Sort(all)
	return ratio{Median: rounded(median(all)), Lowest: rounded(all[0]), Highest: rounded(all[len(all)-1])}, true
}

// without takes the time of the handler from that of the middleware in front of
// it, round by round.
func without(handler, middleware map[int]row) map[int]row {
	net := make(map[int]row)
	for round, one := range middleware {
		if h, ok := handler[round]; ok && h.PerSecond > one.PerSecond {
			net[round] = row{PerSecond: 1 / (1/one.PerSecond - 1/h.PerSecond)}
		}
	}
	return net
}

// median of sorted values; of two in the middle their mean.
func median(sorted []float64) float64 {
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func (r *report) writeJSON(w io.Writer) error {
	if r.Rows == nil {
		r.Rows = []row{}
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}
