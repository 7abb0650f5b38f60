package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/peerlimit/peerlimit/cluster"
)

func ExampleStart() {
	ctx := context.Background()
	secret := []byte("32 random bytes in real life ...")

	first, err := cluster.Start(ctx, cluster.Config{
		ClusterName: "shop", NodeID: "api-1", Bind: "127.0.0.1:0", Secret: secret,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer first.Close()
	second, err := cluster.Start(ctx, cluster.Config{
		ClusterName: "shop", NodeID: "api-2", Bind: "127.0.0.1:0", Secret: secret,
		Join: []string{first.Self().Gossip}, // in real life a DNS name that has all members' addresses
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer second.Close()

	for _, m := range second.Members() {
		fmt.Println(m.Name, m.State)
	}
	// Start has waited for a while; a member that is refused, or that waits for
	// another one which is slow to hand over, may take longer.
	fmt.Println("ready:", second.AwaitReady(ctx) == nil)
	// Output:
	// api-1 alive
	// api-2 alive
	// ready: true
}

func ExampleNode_Broadcast() {
	node, err := cluster.Start(context.Background(), cluster.Config{NodeID: "api-1", Bind: "127.0.0.1:0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer node.Close()
	node.Handle("forget", func(_ context.Context, from cluster.Member, payload []byte) ([]byte, error) {
		fmt.Printf("%s asks to forget %s\n", from.Name, payload)
		return nil, nil
	})
	receipt := node.Broadcast(context.Background(), "forget", []byte("account:1"))
	fmt.Println(receipt.Reached, "of", receipt.Members, receipt.Unreached)
	// Output:
	// api-1 asks to forget account:1
	// 1 of 1 []
}

func ExampleConfig() {
	// Off loopback everything is encrypted, so a secret is needed.
	_, err := cluster.Start(context.Background(), cluster.Config{Bind: ":7946"})
	fmt.Println(err)
	var wrong *cluster.ConfigError
	if errors.As(err, &wrong) {
		fmt.Println("the field is", wrong.Field)
	}
	// Output:
	// cluster: Config.Bind: ":7946" is not loopback, so Secret must be set: 32 random bytes, the same on all members
	// the field is Bind
}

func ExampleConfigFromEnv() {
	set := func(name, value string) func() {
		os.Setenv(name, value)
		return func() { os.Unsetenv(name) }
	}
	defer set("PEERLIMIT_CLUSTER", "shop")()
	defer set("PEERLIMIT_JOIN", "api-peers.shop.svc:7946, 10.0.0.7")()
	defer set("PEERLIMIT_JOIN_TIMEOUT", "5s")()
	cfg, err := cluster.ConfigFromEnv()
	fmt.Println(cfg.ClusterName, cfg.Join, cfg.JoinTimeout, err)

	defer set("PEERLIMIT_MIN_MEMBERS", "most")()
	_, err = cluster.ConfigFromEnv()
	fmt.Println(err)
	// Output:
	// shop [api-peers.shop.svc:7946 10.0.0.7] 5s <nil>
	// cluster: PEERLIMIT_MIN_MEMBERS: "most" is not a number from 1 to 10000
}
