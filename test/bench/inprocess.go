package main

import (
	"context"
	"errors"
	"testing"

	"github.com/peerlimit/peerlimit/ratelimit"
)

// inProcess is a decision that leaves no process, per call.
type inProcess struct {
	Name        string  `json:"name"`
	Nanoseconds float64 `json:"ns"`
	Allocs      int64   `json:"allocs"`
	Bytes       int64   `json:"bytes"`
}

// measureInProcess measures decisions at the holder, by one caller: of this
// process alone, and as the only member of a cluster, which checks possession.
func measureInProcess(ctx context.Context) (all []inProcess, err error) {
	testing.Init()
	alone, err := ratelimit.New(ratelimit.Config{})
	if err != nil {
		return nil, err
	}
	node, member, err := startNode(ctx, clusterName(), "bench-alone", nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, alone.Close(), member.Close(), node.Close()) }()
	window := policy
	window.Algorithm = ratelimit.FixedWindow
	for _, c := range []struct {
		name   string
		limits *ratelimit.Limiter
		policy ratelimit.Policy
	}{
		{"no cluster, token bucket", alone, policy},
		{"no cluster, fixed window", alone, window},
		{"at the holder, token bucket", member, policy},
		{"at the holder, fixed window", member, window},
	} {
		keys := allKeys(1024)
		var failed error
		result := testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d, err := c.limits.Allow(ctx, c.policy, keys[i&1023])
				if err != nil || !d.Allowed {
					failed = errors.Join(err, errors.New(c.name+": not allowed: "+d.Reason))
					return
				}
			}
		})
		if failed != nil {
			return all, failed
		}
		all = append(all, inProcess{c.name, float64(result.T.Nanoseconds()) / float64(max(result.N, 1)),
			result.AllocsPerOp(), result.AllocedBytesPerOp()})
	}
	return all, nil
}
