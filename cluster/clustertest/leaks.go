package clustertest

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Main runs a package's tests and fails them where a goroutine is left: call it in
// TestMain. It looks for some seconds, for memberlist does not wait for its
// goroutines when it is shut down, and a probe under way ends about a second later.
func Main(m *testing.M) {
	code := m.Run()
	var err error
	for range 10 {
		if err = goleak.Find(); err == nil {
			break
		}
	}
	if err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
