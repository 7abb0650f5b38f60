//go:build race

package cluster

// slowness of a program built with the race detector; see pace.go.
const slowness = 5
