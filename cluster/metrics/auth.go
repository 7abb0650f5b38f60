package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/peerlimit/peerlimit/auth"
)

type verdictFrom struct {
	verdict auth.Verdict
	source  auth.Source
}

// usualVerdicts are shown from the start, so that the first of a kind is seen
// by rate().
var usualVerdicts = []verdictFrom{
	{auth.Valid, auth.FromNear}, {auth.Valid, auth.FromStore},
	{auth.NotFound, auth.FromNear}, {auth.NotFound, auth.FromStore},
	{auth.Disabled, auth.FromNear}, {auth.Disabled, auth.FromStore},
	{auth.Expired, auth.FromNear}, {auth.Expired, auth.FromStore},
	{auth.Malformed, auth.FromKey},
	{auth.Unavailable, auth.FromKey}, {auth.Unavailable, auth.FromStore},
}

func collectAuth(to chan<- prometheus.Metric, auths []Authenticator) {
	counts := make(map[verdictFrom]uint64)
	for _, v := range usualVerdicts {
		counts[v] = 0
	}
	var stale uint64
	for _, a := range auths {
		s := a.Stats()
		stale += s.StaleServed
		for verdict, sources := range s.Verdicts {
			for source, n := range sources {
				counts[verdictFrom{verdict, source}] += n
			}
		}
	}
	for v, n := range counts {
		to <- authVerdicts.with(float64(n), v.verdict.String(), v.source.String())
	}
	to <- authStale.with(float64(stale))
}
