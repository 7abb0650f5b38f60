package clustertest

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Main runs a package's tests and fails them where a goroutine is left: call it in
// TestMain. Of those that are parallel four run at a time, two under the race
// detector, however few processors there are, unless -parallel says otherwise.
func Main(m *testing.M) {
	_ = flag.Set("test.parallel", parallel)
	code := m.Run()
	if err := Leaked(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// Leaked returns an error that names the goroutines which are left. It looks for
// some seconds, for memberlist does not wait for its own when a member ends: a
// probe that is under way goes on for about a second.
func Leaked() (err error) {
	for range 10 {
		if err = goleak.Find(); err == nil {
			return nil
		}
	}
	return err
}
