package membership

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// freePorts returns ports that nobody listens on just now.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out
}
