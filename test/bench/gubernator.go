package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	guber "github.com/gubernator-io/gubernator/v2"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// gubernator asks one of three daemons, by their own client.
type gubernator struct {
	servers   *gubernators
	behaviour string // batching, no-batching, global
}

func (g *gubernator) name() string     { return "gubernator-" + g.behaviour }
func (g *gubernator) missing() string  { return "" }
func (g *gubernator) processes() []int { return pids(g.servers.daemons) }

func (g *gubernator) start(ctx context.Context, _ int) error { return g.servers.start(ctx) }
func (g *gubernator) close() error                           { return g.servers.close() }

func (g *gubernator) prepare(ctx context.Context, p path) (*job, error) {
	if !p.decides() || p.where == here {
		return nil, nil
	}
	var doors []ask
	for _, client := range g.servers.clients {
		doors = append(doors, g.asker(client, p.rule))
	}
	keys := p.names(p.keys)
	if p.where == elsewhere {
		var err error
		if keys, err = g.elsewhere(ctx, p); err != nil {
			return nil, err
		}
	}
	return &job{ask: doors[0], keys: keys, spend: spender(doors...)}, nil
}

var behaviours = map[string]guber.Behavior{
	"batching":    guber.Behavior_BATCHING,
	"no-batching": guber.Behavior_NO_BATCHING,
	"global":      guber.Behavior_GLOBAL,
}

func (g *gubernator) request(r rule, key string, hits int64) *guber.GetRateLimitsReq {
	return &guber.GetRateLimitsReq{Requests: []*guber.RateLimitReq{{
		// The behaviours are kept apart, so that none finds the others' counts.
		Name: r.Name + ":" + g.behaviour, UniqueKey: key, Hits: hits, Limit: r.Limit,
		Duration: r.Period.Milliseconds(), Algorithm: guber.Algorithm_TOKEN_BUCKET,
		Behavior: behaviours[g.behaviour],
	}}}
}

func (g *gubernator) asker(client guber.V1Client, r rule) ask {
	return func(ctx context.Context, key string) (bool, error) {
		answer, err := first(client.GetRateLimits(ctx, g.request(r, key, 1)))
		return err == nil && answer.Status == guber.Status_UNDER_LIMIT, err
	}
}

func first(all *guber.GetRateLimitsResp, err error) (*guber.RateLimitResp, error) {
	switch {
	case err != nil:
		return nil, err
	case len(all.Responses) != 1:
		return nil, fmt.Errorf("%d answers to one question", len(all.Responses))
	case all.Responses[0].Error != "":
		return nil, errors.New(all.Responses[0].Error)
	}
	return all.Responses[0], nil
}

// elsewhere returns keys that another daemon owns than the one that is asked:
// its answer names the owner then.
func (g *gubernator) elsewhere(ctx context.Context, p path) ([]string, error) {
	const callers = 64
	candidates := p.names(p.candidates())
	var (
		wait   sync.WaitGroup
		failed = make([]error, callers)
		owned  = make([]bool, len(candidates))
	)
	for i := range callers {
		wait.Go(func() {
			for k := i; k < len(candidates) && failed[i] == nil; k += callers {
				var answer *guber.RateLimitResp
				answer, failed[i] = first(g.servers.clients[0].GetRateLimits(ctx, g.request(p.rule, candidates[k], 0)))
				owned[k] = answer != nil && answer.Metadata["owner"] == ""
			}
		})
	}
	wait.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	var keys []string
	for k, key := range candidates {
		if !owned[k] && len(keys) < p.keys {
			keys = append(keys, key)
		}
	}
	if len(keys) < p.keys {
		return nil, fmt.Errorf("only %d of %d keys are owned by others", len(keys), len(candidates))
	}
	return keys, nil
}

// gubernators are the daemons, which the three behaviours share, one after the
// other.
type gubernators struct {
	daemons     []*child
	connections []*grpc.ClientConn
	clients     []guber.V1Client
}

// daemonSettings are those of one daemon. Its memberlist tells members apart by
// their IP only, so that each needs one of its own.
type daemonSettings struct {
	Host, Port, HTTPPort, GossipPort string
	Known                            []string
	Members                          int
}

func (g *gubernators) start(ctx context.Context) error {
	ports := make([]string, 3)
	for i := range ports {
		var err error
		if ports[i], err = freePort("127.0.0.2"); err != nil {
			return err
		}
	}
	s := daemonSettings{Port: ports[0], HTTPPort: ports[1], GossipPort: ports[2], Members: 3}
	for i := range s.Members {
		s.Host = fmt.Sprintf("127.0.0.%d", i+2)
		daemon, err := startSelf(ctx, gubernatorCommand, s)
		if err != nil {
			return err
		}
		g.daemons = append(g.daemons, daemon)
		s.Known = append(s.Known, net.JoinHostPort(s.Host, s.GossipPort))
		connection, err := grpc.NewClient(net.JoinHostPort(s.Host, s.Port),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		g.connections = append(g.connections, connection)
		g.clients = append(g.clients, guber.NewV1Client(connection))
	}
	for _, client := range g.clients {
		if err := g.await(ctx, client, s.Members); err != nil {
			return err
		}
	}
	return nil
}

// await waits until a daemon sees all.
func (g *gubernators) await(ctx context.Context, client guber.V1Client, members int) error {
	for {
		health, err := client.HealthCheck(ctx, &guber.HealthCheckReq{})
		if err == nil && health.Status == "healthy" && int(health.PeerCount) == members {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

func (g *gubernators) close() error {
	var failed []error
	for _, connection := range g.connections {
		failed = append(failed, connection.Close())
	}
	killAll(g.daemons)
	g.daemons, g.connections, g.clients = nil, nil, nil
	return errors.Join(failed...)
}

// gubernatorKeys is the size of a daemon's cache, beyond the number of keys
// here: by default it forgets what does not fit into 50,000.
const gubernatorKeys = 2_000_000

// runGubernator is a daemon until its input ends.
func runGubernator(ctx context.Context, in io.Reader, out io.Writer) error {
	var daemon *guber.Daemon
	defer func() {
		if daemon != nil {
			daemon.Close()
		}
	}()
	return serveLines(bufio.NewScanner(in), out, func(line []byte) (any, error) {
		var s daemonSettings
		if err := json.Unmarshal(line, &s); err != nil {
			return nil, err
		}
		var err error
		daemon, err = spawnGubernator(ctx, s)
		return "ready", err
	})
}

func spawnGubernator(ctx context.Context, s daemonSettings) (*guber.Daemon, error) {
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	address := net.JoinHostPort(s.Host, s.Port)
	gossip := net.JoinHostPort(s.Host, s.GossipPort)
	info := guber.PeerInfo{GRPCAddress: address, HTTPAddress: net.JoinHostPort(s.Host, s.HTTPPort)}
	return guber.SpawnDaemon(ctx, guber.DaemonConfig{
		GRPCListenAddress: address, AdvertiseAddress: address, HTTPListenAddress: info.HTTPAddress,
		InstanceID: s.Host, CacheSize: gubernatorKeys, Logger: silent,
		PeerDiscoveryType: "member-list",
		MemberListPoolConf: guber.MemberListPoolConfig{
			Advertise: info, NodeName: s.Host, KnownNodes: slices.Clone(s.Known),
			MemberListAddress: gossip, MemberListBindAddress: gossip,
		},
	})
}
