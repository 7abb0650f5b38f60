package auth

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(stoppedChildEnv) != "" {
		os.Exit(stoppedChild())
	}
	goleak.VerifyTestMain(m)
}
