//go:build race

package ratelimit

// The race detector makes the model tests ten times slower, and finds nothing in
// them: they have one goroutine.
func init() { sequenceCount = 5_000 }

func init() { raceDetector = true }
