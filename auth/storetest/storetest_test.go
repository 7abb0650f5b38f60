package storetest_test

import (
	"testing"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) auth.Store { return auth.NewMemory() })
}
