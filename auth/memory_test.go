package auth_test

import (
	"testing"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/storetest"
)

func TestMemoryIsAStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) auth.Store { return auth.NewMemory() })
}
