package metrics_test

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// figures are all samples of one scrape: name{label="value",…} with the labels
// sorted, histograms as _count and _sum.
type figures map[string]float64

// gather scrapes c once.
func gather(t require.TestingT, c prometheus.Collector) figures {
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(c))
	families, err := r.Gather()
	require.NoError(t, err)
	out := figures{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+`="`+l.GetValue()+`"`)
			}
			suffix := ""
			if len(labels) > 0 {
				suffix = "{" + strings.Join(labels, ",") + "}"
			}
			switch name := f.GetName(); {
			case m.GetHistogram() != nil:
				out[name+"_count"+suffix] = float64(m.GetHistogram().GetSampleCount())
				out[name+"_sum"+suffix] = m.GetHistogram().GetSampleSum()
			case m.GetCounter() != nil:
				out[name+suffix] = m.GetCounter().GetValue()
			default:
				out[name+suffix] = m.GetGauge().GetValue()
			}
		}
	}
	return out
}

// of returns the samples of one metric.
func (f figures) of(name string) figures {
	out := figures{}
	for k, v := range f {
		if k == name || strings.HasPrefix(k, name+"{") {
			out[k] = v
		}
	}
	return out
}

// sum adds up the samples whose name has all of words.
func (f figures) sum(words ...string) (total float64) {
	for k, v := range f {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(k, w) }) {
			total += v
		}
	}
	return total
}
