package cluster

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// memberlist does not wait for its goroutines when it is shut down; a probe
// under way ends about a second later.
func TestMain(m *testing.M) {
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

// Slowness is for tests from outside.
const Slowness = slowness
