//go:build race

package kv

// slowness of a program built with the race detector; see pace.go.
const slowness = 4
