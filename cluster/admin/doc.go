// Package admin shows a member of a cluster to those who run it: an
// [http.Handler] with
//
//   - /healthz: the process is alive;
//   - /readyz: it should get requests, or 503 and why not;
//   - /v1/cluster: this member's view of its cluster, a [cluster.Status] in JSON;
//   - /: a page for people that keeps itself up to date, with members, ring,
//     decisions and denials a second, the hottest and most denied keys, breakers,
//     the key-value store and slots that have no second copy.
//
// It answers GET and HEAD only and changes nothing, so that a page open in a
// browser can do no harm. The page needs nothing from elsewhere, runs under a
// strict Content-Security-Policy, and its addresses are relative: behind
// [http.StripPrefix] the handler may be mounted anywhere, at a path that ends
// with a slash.
//
// What the page says of decisions comes from a [Traffic], the Observer of one or
// more limiters. Figures are this process's own, and with them those that the
// other members tell of themselves when they are asked, half a second at most;
// who did not answer is named and not counted.
//
// Keys are shown shortened, see [Shown], and no full key is kept or sent to
// another member. All the same, the page and /v1/cluster tell names and
// addresses: the package asks nobody for a password, so mount it where only
// those who run the service reach it. The probes are for anybody.
package admin
