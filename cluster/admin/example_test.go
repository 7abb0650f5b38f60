package admin_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/admin"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// A service that embeds a member shows it on a port of its own, which only
// those who run the service reach.
func Example() {
	ctx := context.Background()
	node, err := cluster.Start(ctx, cluster.Config{
		ClusterName: "shop", Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0", KVBind: "127.0.0.1:0",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer node.Close()
	traffic := admin.NewTraffic()
	limits, err := ratelimit.New(ratelimit.Config{Cluster: node, Observer: traffic})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()
	server := httptest.NewServer(admin.New(admin.Config{Node: node, Traffic: traffic}))
	defer server.Close()

	if err := node.AwaitReady(ctx); err != nil {
		fmt.Println(err)
		return
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		answer, err := http.Get(server.URL + path)
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		fmt.Print(answer.StatusCode, " ", string(body))
	}
	http.DefaultClient.CloseIdleConnections()
	// Output:
	// 200 {"status":"alive"}
	// 200 {"status":"ready"}
}

func ExampleShown() {
	fmt.Println(admin.Shown("tenant-7"))
	fmt.Println(admin.Shown("203.0.113.104"))
	fmt.Println(admin.Shown("pl_live_Zk3vQ0x9Jp7LmW2s"))
	// Output:
	// tenant-7
	// 203.0.113.104
	// pl_live_Zk3v…
}
