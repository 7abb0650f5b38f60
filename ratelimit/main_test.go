package ratelimit

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// A member that is killed leaves a probe of memberlist behind, which ends about
// a second later.
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
