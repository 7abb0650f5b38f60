package e2e

import (
	"testing"
	"time"
)

// Eventually asks until the answer is nil. Nothing tells a test of what happens
// inside another process, so it has to ask; it never sleeps instead of asking.
func Eventually(t testing.TB, timeout time.Duration, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", timeout, err)
		}
		time.Sleep(pause)
	}
}
