package membership

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
)

// freePorts returns ports that nobody listens on just now, below those that systems give to who asks for any.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for len(ports) < n {
		port := 10_000 + rand.IntN(20_000)
		if slices.Contains(ports, port) {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			continue
		}
		l.Close()
		ports = append(ports, port)
	}
	return ports
}
