package peer_test

import (
	"context"
	"fmt"

	"github.com/peerlimit/peerlimit/cluster/internal/peer"
)

func Example() {
	listen := func(boot peer.Boot, node string) *peer.Transport {
		t, err := peer.Listen(peer.Config{
			Self: boot, Node: node, Cluster: "shop", Bind: "127.0.0.1:0", Secrets: [][]byte{[]byte("32 random bytes from a file")},
		})
		if err != nil {
			panic(err)
		}
		return t
	}
	a, b := listen(1, "a"), listen(2, "b")
	defer a.Close()
	defer b.Close()
	b.Handle("greet", func(_ context.Context, from peer.Boot, payload []byte) ([]byte, error) {
		return fmt.Appendf(nil, "hello %s, you are %v", payload, from), nil
	})
	a.Start()
	b.Start()
	a.SetPeers(map[peer.Boot]peer.Peer{2: {Node: "b", Addr: b.Addr().String()}})

	answer, err := a.Call(context.Background(), 2, "greet", []byte("from a"))
	fmt.Println(string(answer), err)
	// Output: hello from a, you are 0000000000000001 <nil>
}
