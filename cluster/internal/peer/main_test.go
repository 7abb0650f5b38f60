package peer

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(childBoot) != "" {
		beMember()
		return
	}
	goleak.VerifyTestMain(m)
}

// childBoot, in the environment, makes the test binary a member with that boot instead, until its stdin ends.
const childBoot = "PEER_TEST_CHILD"

func beMember() {
	tr, err := Listen(Config{Self: 2, Node: "child", Cluster: "test", Bind: "127.0.0.1:0", Secrets: secretsOf("s")})
	if err != nil {
		panic(err)
	}
	tr.Start()
	fmt.Println(tr.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = tr.Close()
}

// start starts a transport on loopback TCP, and closes it with the test.
func start(t testing.TB, self Boot, change func(*Config)) *Transport {
	t.Helper()
	cfg := Config{Self: self, Node: "node-" + self.String()[15:], Cluster: "test", Bind: "127.0.0.1:0"}
	if change != nil {
		change(&cfg)
	}
	tr, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	tr.Start()
	return tr
}

// introduce makes all of them known to each.
func introduce(all ...*Transport) {
	peers := make(map[Boot]Peer)
	for _, t := range all {
		peers[t.cfg.Self] = Peer{Node: t.cfg.Node, Addr: t.Addr().String()}
	}
	for _, t := range all {
		t.SetPeers(peers)
	}
}

// eventually waits until f holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func ctxFor(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}
