package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/admin"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// serviceVariable makes the test binary a replica of a service that embeds the
// packages, configured by its value, a serviceConfig in JSON.
const serviceVariable = "PEERLIMIT_E2E_SERVICE"

// serviceConfig is what a version of the service has been built with.
type serviceConfig struct {
	Cluster, Name string
	Join          []string
	Secret        string
	Limit         int64 // of the policy "calls", an hour
}

const servicePath = "/served?key="

// serveService is the replica: it limits requests by the key in their query, says
// that it is ready as cmd/node does, and leaves when it is asked to.
func serveService() (exitCode int) {
	if err := runService(); err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		return 1
	}
	return 0
}

func runService() error {
	var config serviceConfig
	if err := json.Unmarshal([]byte(os.Getenv(serviceVariable)), &config); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	member := cluster.Config{ClusterName: config.Cluster, NodeID: config.Name, Bind: "127.0.0.1:0",
		Join: config.Join, Secret: []byte(config.Secret), Logger: log}
	patient(0, &member)
	node, err := cluster.Start(ctx, member)
	if err != nil {
		return err
	}
	defer node.Close()
	limits, err := ratelimit.New(ratelimit.Config{Cluster: node, OnUnavailable: ratelimit.FailClosed, Logger: log})
	if err != nil {
		return err
	}
	defer limits.Close()
	mux := http.NewServeMux()
	mux.Handle("/", admin.New(admin.Config{Node: node}))
	mux.Handle("GET /served", limits.Handler(
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		ratelimit.By(ratelimit.Policy{Name: "calls", Limit: config.Limit, Period: time.Hour, Algorithm: ratelimit.FixedWindow},
			func(r *http.Request) (string, error) { return r.URL.Query().Get("key"), nil })))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Printf("ready gossip=%s peer=%s kv=- http=%s\n", node.Self().Gossip, node.Self().Peer, listener.Addr())

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return err
	}
	if err := node.Drain(ctx); err != nil {
		return err
	}
	return node.Close()
}

// LaunchService starts a replica, which is a Member in all that has to do with
// its process and its place in the cluster.
func LaunchService(t testing.TB, config serviceConfig) *Member {
	t.Helper()
	secrets.add(config.Secret)
	m := &Member{Name: config.Name, t: t, ready: make(chan string, 1), gone: make(chan struct{})}
	m.command = exec.Command(testBinary(t))
	m.command.Env = append(cleanEnvironment(), serviceVariable+"="+string(mustJSON(config)))
	m.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 512}}
	m.launch()
	t.Cleanup(m.cleanup)
	return m
}

// Call sends one request of that key.
func (m *Member) Call(ctx context.Context, key string) (Decision, http.Header, error) {
	status, header, body, err := m.Request(ctx, http.MethodGet, servicePath+url.QueryEscape(key), nil)
	switch {
	case err != nil:
		return Decision{}, nil, err
	case status != http.StatusOK && status != http.StatusTooManyRequests:
		return Decision{}, nil, fmt.Errorf("%s: %d %s", m.Name, status, body)
	}
	return Decision{Allowed: status == http.StatusOK}, header, nil
}
