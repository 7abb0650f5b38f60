package main

import (
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/peerlimit/peerlimit/cluster/metrics"
)

// scrapesAtOnce bounds how many scrapes run at a time: one walks over all keys,
// and a second is there for who looks by hand.
const scrapesAtOnce = 2

// metricsAPI is what Prometheus scrapes: the member's own figures, those of its
// HTTP API and those of its process.
type metricsAPI struct{ page http.Handler }

func newMetricsAPI(m *metrics.Collector, log *slog.Logger, own ...prometheus.Collector) *metricsAPI {
	registry := prometheus.NewRegistry()
	registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewBuildInfoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(own...)
	return &metricsAPI{promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError, // what can be shown is
		MaxRequestsInFlight: scrapesAtOnce,
		EnableOpenMetrics:   true,
	})}
}

func (a *metricsAPI) routes() []route {
	return []route{{"GET /metrics", forUsers, a.page.ServeHTTP}}
}
