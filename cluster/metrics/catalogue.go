package metrics

import "github.com/prometheus/client_golang/prometheus"

// metric is one name that is exported, and what is said of it.
type metric struct {
	name string
	help string
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// prefix is before every name.
const prefix = "peerlimit_"

func counter(name, help string, labels ...string) metric {
	return metric{prefix + name, help, prometheus.NewDesc(prefix+name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) metric {
	return metric{prefix + name, help, prometheus.NewDesc(prefix+name, help, labels, nil), prometheus.GaugeValue}
}

// with is a sample of it.
func (m *metric) with(v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
}

// histogram is a metric that is kept by a prometheus.Histogram; its help goes
// there.
func histogram(name, help string) metric { return metric{name: prefix + name, help: help} }

// What is exported. The help is read by who looks for the cause of something at
// night: it says what is counted, and what to make of it.
var (
	decisions = counter("ratelimit_decisions_total",
		"Decisions made on this member, by policy and outcome: allowed, denied, shadow_denied (would have been denied, the policy is in shadow mode), degraded_allowed and degraded_denied (nobody who may decide answered, so the failure mode did). Policies beyond the bound are \"other\".",
		"policy", "outcome")
	nearLimit = counter("ratelimit_near_limit_total",
		"Allowed decisions after which at least 80 % of what can be had at once was in use. A policy that is near its limit most of the time is about to deny.",
		"policy")
	decisionSeconds = histogram("ratelimit_decision_seconds",
		"How long decisions took in seconds, from the call to the answer, other members' part included. A key that this member holds takes microseconds; 0.25 is the longest anyone waits for a holder.")
	keys = gauge("ratelimit_keys",
		"Keys with something used whose holder is this member. The sum over the members is that of the cluster; copies are not counted.")
	evictedLive = counter("ratelimit_evicted_live_total",
		"Keys that this member forgot while they still counted, because it had more than the limiter's MaxKeys: their limits started anew. Above zero, raise MaxKeys or find out who makes up keys.")

	cacheRequests = counter("cache_requests_total",
		"Keys asked of the cache by how they were answered: near_hit (in this process), hit (by the shared store), miss, error (the shared store failed) and open (it was not asked, its breaker was open). The last two are misses to the caller.",
		"result")
	cacheSeconds = histogram("cache_operation_seconds",
		"How long cache calls took in seconds that were not answered near, by operation; a load's own time is in load.")
	cacheCoalesced = counter("cache_coalesced_total",
		"Cache calls that shared the work of another call for the same key, under way at the time.")

	breakerState = gauge("breaker_state",
		"State of a circuit breaker: 0 closed, 1 half-open, 2 open. kv is that before the shared store, the others are those of peers, by node ID, as long as they are members.",
		"name")
	breakerTransitions = counter("breaker_transitions_total",
		"Changes of a circuit breaker to closed, half-open or open. Many to open mean a peer, or a store, that comes and goes.",
		"name", "to")
	breakerOpenSeconds = counter("breaker_open_seconds_total",
		"How long in seconds a circuit breaker was open or half-open in all.",
		"name")

	authVerdicts = counter("auth_verdicts_total",
		"API keys judged, by verdict and where it came from: key (the key itself), near (this process's cache), store. UNAVAILABLE from key was throttled; from store nobody who knows could be asked, and the caller was refused.",
		"verdict", "source")
	authStale = counter("auth_stale_served_total",
		"API keys accepted that were cached for longer than they should be, because the key store was down. Every one of them would have been asked of the store otherwise.")

	members = gauge("cluster_members",
		"Members that this one sees alive or draining, itself included. Members that differ for long are split.")
	ringVersion = gauge("cluster_ring_version",
		"The first 48 bits of the hash of who should hold which slot; its size means nothing. Members of one cluster with different values for more than some seconds are split.")
	possessedSlots = gauge("cluster_possessed_slots",
		"Slots of 16384 that this member serves. The sum over the members is 16384 but for moments in which slots change hands.")
	unprotectedEntries = gauge("cluster_unprotected_entries",
		"Entries of tables that this member serves and of which no other one has a full copy: what could be lost with it. Above zero for some seconds after a member was lost, and always on one that is alone.")
	replicationLag = gauge("cluster_replication_lag_seconds",
		"How long in seconds the oldest change that a backup has not acknowledged has been queued or under way; 0 if there is none. Some milliseconds are usual.")
	moves = counter("cluster_moves_total",
		"Slots that this member handed to another one, or was handed, in plan. Over all members each move counts twice.")
	takeovers = counter("cluster_takeovers_total",
		"Slots that this member took over from one that had fallen silent.")
	framesRejected = counter("cluster_frames_rejected_total",
		"Connections and frames refused on the port between members, by reason: secret is somebody without the right one, version a member that is too old or too new, cluster one of another cluster; length, magic, hello, type and payload are malformed.",
		"reason")
)

// catalogue is all of them.
var catalogue = []metric{
	decisions, nearLimit, decisionSeconds, keys, evictedLive,
	cacheRequests, cacheSeconds, cacheCoalesced,
	breakerState, breakerTransitions, breakerOpenSeconds,
	authVerdicts, authStale,
	members, ringVersion, possessedSlots, unprotectedEntries, replicationLag, moves, takeovers, framesRejected,
}

// Names returns the names of all metrics that a Collector can export, in the
// order they are explained. Histograms have the usual _bucket, _sum and _count.
func Names() []string {
	names := make([]string, len(catalogue))
	for i := range catalogue {
		names[i] = catalogue[i].name
	}
	return names
}
