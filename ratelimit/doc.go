// Package ratelimit decides how much of something may be used: calls a minute,
// bytes a day, requests in flight. Members of a cluster decide together; without
// a cluster a process decides alone.
//
// A [Policy] says how much; a key says for whom; a [Limiter] decides:
//
//	perIP := ratelimit.PerMinute("ip", 100)
//	d, err := limits.Allow(ctx, perIP, "203.0.113.7")
//
// # Which algorithm
//
//	TokenBucket     the default. Permits come back one by one. Smooth; a full
//	                bucket lets its burst through at once. Up to burst + limit
//	                in one period.
//	SlidingWindow   the limit over the last period, estimated. For "n an hour"
//	                promises without bursts at the hour. Up to 2 × limit in one
//	                period, for the worst of bursts; exact for even traffic.
//	FixedWindow     the limit from the first hit until a period later, or each
//	                calendar minute, day, month in a time zone. For quotas that
//	                people read off a page. Up to 2 × limit around a window's end.
//	Concurrency     calls at the same time, whatever they last. For what is
//	                scarce while it runs.
//
// Each keeps 48 bytes a key, and the last one 24 more for each place taken. The
// formulas are in their files.
//
// # What is promised
//
// All members together never allow more than the limit, and all of it can be had,
// while members join and leave in order; when one dies, at most one permit or 1 %
// of the limit more, whichever is more, and with Policy.Synchronous none. The
// clock of one member decides, the holder of the key. A denied call, bad input,
// and a cost that could never be allowed spend nothing. A changed limit keeps what
// was used. Several checks at once, [Limiter.AllowAll], spend all or nothing.
//
// A member that sees a key of another's often is lent a part of its permits for up
// to 100 ms and hands them out by itself, and remembers denials for up to 250 ms.
// That keeps all of the above, but for what Policy.NoLeases names, which does
// without.
//
// # What is not
//
// When nobody who may decide answers, a [FailureMode] decides, and the decision
// says Degraded. An operation that was sent twice because its first answer was
// lost may cost a permit that nobody was told of; it never grants one too many.
// Counters are in memory: when all members stop, they are gone, and so are
// policies that were stored at run time.
//
// # Requests
//
// [Limiter.Handler] and [Middleware] limit net/http handlers and send the headers
// of draft-ietf-httpapi-ratelimit-headers-10; package grpclimit limits gRPC
// servers. Keys come from key functions: [ClientIP], [Header], [Secret], [Route],
// [Join] and any other. No header of a request is believed unless one says so.
//
// # Policies as data
//
// Policies can be stored in the cluster, from a file ([ParsePolicies]) or at run
// time ([Limiter.PutPolicy], [Limiter.SetOverride]), and come before what callers
// bring under the same name. Overrides are for single keys.
package ratelimit
