package auth

import (
	"testing"

	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

func TestMain(m *testing.M) { clustertest.Main(m) }
