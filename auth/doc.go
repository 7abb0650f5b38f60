// Package auth verifies API keys in nanoseconds and revokes them everywhere at once.
//
// An [Authenticator] answers [Authenticator.Verify] from a cache on this member, then from a cache shared by
// the cluster (if one is given), then from the [Store]; identical concurrent questions are asked once. Known keys
// are cached for five minutes, unknown ones for thirty seconds in a bounded cache of their own.
//
// # What it promises
//
//   - When [Authenticator.Disable], [Authenticator.Delete], or any other change returns, no member accepts the key
//     by the old state: the reached ones were told, and on the others everything cached has lost its confirmation
//     (see DESIGN.md in this directory). A member that was stopped and runs again confirms before it answers.
//   - A verification that read the store before a revocation can't put the key back.
//   - It never fails open: where neither the store nor a confirmed cache can tell, the verdict is [Unavailable].
//   - A store that is down is never mistaken for an unknown key. A confirmed positive may be served for a bounded
//     time meanwhile, and says that it is stale.
//   - A key's secret is shown once, by the call that makes it. It is kept, cached, sent between members and logged
//     only as SHA-256 and a short display prefix, and compared in constant time.
//
// # What it does not
//
// It does not hash slowly: keys made here have more than 160 undisclosed random bits, so SHA-256 can't be reversed
// by guessing. A key made elsewhere and imported is as strong as it was made; [Authenticator.Import] refuses
// plainly short ones where it sees them. It does not limit rates; [Config.FailureLimit] is where a limiter is put.
// A store that answers from a lagging replica weakens every promise about revocation to that lag. A key's expiry is
// an instant on the wall clock, and as exact as the members' clocks are.
//
// With a nil [Config.Cluster] everything works in this process alone; processes that share a store then still see
// each other's revocations within a second.
package auth
