package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/cache"
	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/admin"
	"github.com/peerlimit/peerlimit/cluster/metrics"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// services are what a member offers over HTTP.
type services struct {
	node   *cluster.Node
	mode   ratelimit.FailureMode
	log    *slog.Logger
	limits *ratelimit.Limiter
	keys   *auth.Authenticator // nil: there is no store for them
	store  *keyStore
	values *cache.Cache[[]byte]
	counts *cache.Counter

	metrics  *metrics.Collector
	refusals prometheus.Collector     // of the HTTP API
	view     *admin.Handler           // of the member, for those who run it
	policies []ratelimit.StoredPolicy // of the file, to be stored
}

// openServices opens them on node. What was opened when it fails is closed.
func openServices(ctx context.Context, node *cluster.Node, c *serveCommand, mode ratelimit.FailureMode, log *slog.Logger, observer ratelimit.Observer) (_ *services, err error) {
	s := &services{node: node, mode: mode, log: log, metrics: metrics.New(metrics.Config{Cluster: node})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.limits, err = ratelimit.New(ratelimit.Config{
		Cluster: node, Namespace: "http", OnUnavailable: mode, NoLeases: c.Leases == "off", Logger: log, Observer: ratelimit.Observers{s.metrics, observer},
	}); err != nil {
		return nil, err
	}
	s.metrics.WatchLimiter(s.limits)
	if err := s.openKeys(ctx, c.KeyStore, c.Cluster); err != nil {
		return nil, err
	}
	config := cache.Config{Cluster: node, Namespace: "http", Logger: log, Observe: s.metrics.ObserveCache}
	if s.values, err = cache.New[[]byte](config); err != nil {
		return nil, err
	}
	s.metrics.WatchCache(s.values)
	if s.counts, err = cache.NewCounter(config); err != nil {
		return nil, err
	}
	return s, nil
}

// openKeys opens the store of API keys. Where none was asked for, a member
// without a place for the default one still serves all else.
func (s *services) openKeys(ctx context.Context, flag keyStoreFlag, clusterName string) (err error) {
	if s.store, err = flag.open(ctx, clusterName); err != nil {
		if flag != "" {
			return err
		}
		s.log.Warn("no API keys: there is no place for the default store", "error", err)
		return nil
	}
	config := auth.Config{Cluster: s.node, Store: s.store, Logger: s.log}
	if s.store.near {
		config.Shared = auth.NoShared
	}
	if s.keys, err = auth.New(config); err != nil {
		return err
	}
	s.metrics.WatchAuth(s.keys)
	return nil
}

func (s *services) routes() []route {
	keys := noKeys()
	if s.keys != nil {
		keys = (&authAPI{keys: s.keys, log: s.log}).routes()
	}
	return slices.Concat(
		(&ratelimitAPI{limits: s.limits, mode: s.mode, log: s.log}).routes(),
		(&cacheAPI{values: s.values, counters: s.counts, store: s.node.KV().Stats, log: s.log}).routes(),
		(&policiesAPI{limits: s.limits, log: s.log}).routes(),
		(&clusterAPI{node: s.node, view: s.view}).routes(),
		newMetricsAPI(s.metrics, s.log, s.refusals).routes(),
		keys,
	)
}

// close closes what was opened. It may be called where some was not.
func (s *services) close() error {
	var errs []error
	if s.keys != nil {
		errs = append(errs, s.keys.Close()) // writes when keys were last used
	}
	if s.values != nil {
		errs = append(errs, s.values.Close())
	}
	if s.counts != nil {
		errs = append(errs, s.counts.Close())
	}
	if s.limits != nil {
		errs = append(errs, s.limits.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}
