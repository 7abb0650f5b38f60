package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/admin"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// serveCommand runs one member until it is told to leave.
type serveCommand struct {
	Bind          address       `default:"127.0.0.1:7946" placeholder:"HOST:PORT" help:"Where to listen for gossip, UDP and TCP; port 0 takes a free one."`
	PeerBind      address       `placeholder:"HOST:PORT" help:"Where to listen for other members' calls; the gossip port + 1 unless given."`
	KVBind        address       `name:"kv-bind" placeholder:"HOST:PORT" help:"Where to listen for the key-value store's gossip; the gossip port + 2 unless given."`
	Advertise     string        `placeholder:"HOST" help:"The address at which other members reach this one; found out unless given."`
	HTTP          address       `name:"http" default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where to serve the HTTP API; port 0 takes a free one."`
	Join          []string      `placeholder:"HOST:PORT" help:"A member to join, or a DNS name of many; may be given several times. Own addresses are left out."`
	Cluster       string        `default:"peerlimit" placeholder:"NAME" help:"Name of the cluster; members of another one are refused."`
	NodeID        string        `placeholder:"ID" help:"Stable name of this member; the host's name unless given."`
	Zone          string        `placeholder:"ZONE" help:"Where this member runs, shown to others."`
	SecretFile    string        `placeholder:"FILE" help:"Secrets between members, one a line: the first is used, all are accepted. Needed unless all addresses are loopback."`
	TLSCert       string        `name:"tls-cert" placeholder:"FILE" help:"Certificate for other members, PEM; needs --tls-key and --tls-ca."`
	TLSKey        string        `name:"tls-key" placeholder:"FILE" help:"Its key, PEM."`
	TLSCA         string        `name:"tls-ca" placeholder:"FILE" help:"Who signs the members' certificates, PEM."`
	APITokenFile  string        `placeholder:"FILE" help:"Tokens of those who may use the HTTP API, one a line."`
	AdminTokens   string        `name:"admin-token-file" placeholder:"FILE" help:"Tokens of those who may also administer, one a line."`
	MinMembers    int           `default:"1" placeholder:"N" help:"How many members must be in reach to serve without a backup, from 1 to 10000."`
	OnUnavailable string        `enum:"open,closed,local" default:"open" help:"What to decide while nobody who may decide answers: open allows, closed denies, local lets each member enforce its share."`
	Leases        string        `enum:"on,off" default:"on" help:"Whether this member hands out permits of keys that another one holds, which it was lent for up to 100 ms, and remembers denials for up to 250 ms."`
	KeyStore      keyStoreFlag  `placeholder:"STORE" help:"Where API keys are kept: memory (lost with the process, and each member has its own), sqlite:PATH (members of one machine may share a file) or postgres://… (members of several machines; as it may have a password, give it by the environment). A file keys-CLUSTER.db in $XDG_STATE_HOME/peerlimit or ~/.local/state/peerlimit unless given."`
	Policies      string        `placeholder:"FILE" help:"YAML file of policies that come before what checks bring under the same names; what was changed by way of the API since comes before the file."`
	DrainDelay    time.Duration `default:"0s" placeholder:"D" help:"How long to go on answering, with /readyz saying no, before the HTTP API closes; up to 5m."`
	LogFormat     string        `enum:"text,json" default:"text" help:"text or json."`
	LogLevel      string        `enum:"debug,info,warn,error" default:"info" help:"debug, info, warn or error."`

	PrintConfig bool `env:"-" help:"Print the effective configuration as YAML, with the source of each value, and exit. Files are read and checked; secrets are not shown."`

	StopWithStdin bool `hidden:"" help:"Stop at once when stdin ends: the parent is gone."`
}

// longestDrainDelay is longer than any load balancer takes to notice.
const longestDrainDelay = 5 * time.Minute

// How long a member that leaves takes at most to answer what is under way, and
// to hand over. Together they are well below the 30 s that Kubernetes gives.
const (
	answerWithin = 5 * time.Second
	leaveWithin  = 10 * time.Second
)

// shortestSecret is short enough for a test and too long to be a slip.
const (
	shortestSecret = 16
	shortestToken  = 16
)

// Run serves until ctx ends, then drains, hands over, and leaves.
func (c *serveCommand) Run(ctx context.Context, env *environment) error {
	if c.StopWithStdin {
		go stopWith(os.Stdin)
	}
	if c.DrainDelay < 0 || c.DrainDelay > longestDrainDelay {
		return usagef("--drain-delay: must be 0s to %s, is %s", longestDrainDelay, c.DrainDelay)
	}
	if err := c.KeyStore.check(); err != nil {
		return err
	}
	mode, err := ratelimit.ParseFailureMode(c.OnUnavailable)
	if err != nil {
		return err
	}
	policies, err := readPolicies(c.Policies)
	if err != nil {
		return err
	}
	tokens, err := c.readTokens()
	if err != nil {
		return err
	}
	config, certificates, err := c.clusterConfig()
	if err != nil {
		return err
	}
	if c.PrintConfig {
		return printConfig(env.stdout, env.settings)
	}
	if os.Getenv("GOGC") == "" {
		// A member at rest stays below 64 MiB, at the price of twice the
		// collections; entries have few pointers, so they cost little.
		debug.SetGCPercent(50)
	}
	hangups, forgetHangups := askForHangups()
	defer forgetHangups()
	log := newLogger(env.stderr, c.LogFormat, c.LogLevel)
	config.Logger = log
	probes := new(probes)
	traffic := admin.NewTraffic()
	view := admin.New(admin.Config{Traffic: traffic, Ready: probes.ready})
	api := newHandler(tokens, probeRoutes(view))
	server, err := listenHTTP(ctx, c.HTTP, api, log)
	if err != nil {
		return err
	}
	node, err := cluster.Start(ctx, config)
	if ctx.Err() != nil && node == nil {
		return server.close() // told to leave while it started
	}
	if err != nil {
		return errors.Join(startError(err), server.close())
	}
	view.Started(node)
	probes.started(node)
	services, err := openServices(ctx, node, c, mode, log, traffic)
	if err != nil {
		return errors.Join(err, server.close(), node.Close())
	}
	services.policies, services.view, services.refusals = policies, view, api.refusals
	stopReloading := (&reloader{c, api, certificates, node.SetSecrets, node.SetTLS, log}).onHangup(ctx, hangups)
	defer stopReloading()
	err = c.serve(ctx, env, services, server, probes)
	if ctx.Err() == nil { // it was not told to leave
		return errors.Join(err, server.close(), services.close(), node.Close())
	}
	probes.leaving()
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.DrainDelay+answerWithin)
	defer cancel()
	// Handing over does not share its time with a slow client, and comes before
	// the services end: what they keep in tables is handed over too.
	err = server.shutdown(leaving, c.DrainDelay)
	draining, stopDraining := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
	defer stopDraining()
	err = errors.Join(err, node.Drain(draining), services.close())
	if closeErr := node.Close(); closeErr != nil {
		// All is handed over: nothing is lost when the others find out by
		// themselves, and they can't be told when they leave at this moment too.
		log.Warn("left without a goodbye", "error", closeErr)
	}
	return err
}

// serve opens the API and returns when ctx ends or serving has failed.
func (c *serveCommand) serve(ctx context.Context, env *environment, services *services, server *httpServer, probes *probes) error {
	if err := services.node.AwaitReady(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // told to leave before it could join: nothing has failed
		}
		return err
	}
	if err := loadPolicies(ctx, services.limits, services.policies); err != nil && ctx.Err() == nil {
		return err
	}
	server.handler.open(services.routes())
	probes.serving()
	self := services.node.Self()
	fmt.Fprintln(env.stdout, readyLine(self.Gossip, self.Peer, services.node.Status().KV.Gossip, server.addr()))
	select {
	case <-ctx.Done():
		return nil
	case <-server.done:
		return server.err
	}
}

// readTokens reads the token files, and refuses to let strangers in without.
func (c *serveCommand) readTokens() (*tokens, error) {
	t := &tokens{}
	for _, file := range []struct {
		flag, path string
		to         *[]hashedToken
	}{
		{"--api-token-file", c.APITokenFile, &t.users},
		{"--admin-token-file", c.AdminTokens, &t.admins},
	} {
		if file.path == "" {
			continue
		}
		plain, err := readSecrets(file.flag, file.path, shortestToken)
		if err != nil {
			return nil, err
		}
		*file.to = hashTokens(plain)
	}
	if t.none() && !c.HTTP.loopback() {
		return nil, usagef("--http: %s can be reached from other machines: set --api-token-file or --admin-token-file, or bind to 127.0.0.1", c.HTTP)
	}
	return t, nil
}

// stopWith ends the process when r does. The demo's members have a pipe from it
// as their stdin, which ends with the demo, also when that was killed.
func stopWith(r io.Reader) {
	_, _ = io.Copy(io.Discard, r)
	os.Exit(exitFailed)
}
