package e2e

import (
	"os"
	"testing"
)

// soakLevel is how much of the long tests runs, by PEERLIMIT_SOAK: nothing of
// them unless it is set, what fits into .ci/run with "short", all with "full".
type soakLevel int

const (
	soakNone soakLevel = iota
	soakShort
	soakFull
)

func soak(t testing.TB) soakLevel {
	t.Helper()
	switch level := os.Getenv("PEERLIMIT_SOAK"); level {
	case "":
		return soakNone
	case "short":
		return soakShort
	case "full":
		return soakFull
	default:
		t.Fatalf("PEERLIMIT_SOAK must be short or full, is %q", level)
		return soakNone
	}
}

// of chooses by level, as in soak(t).of(1, 2, 10) runs.
func (l soakLevel) of(none, short, full int) int { return [...]int{none, short, full}[l] }

// needSoak skips a test that is not for every run.
func needSoak(t testing.TB, least soakLevel) {
	t.Helper()
	if soak(t) < least {
		t.Skipf("takes long: set PEERLIMIT_SOAK=%s", [...]string{"", "short", "full"}[least])
	}
}
