//go:build race

package clustertest

// Under the race detector members have something to do all the time.
const parallel = "2"
