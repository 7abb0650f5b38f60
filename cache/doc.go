// Package cache is what an application keeps values in that it can load again:
// shared by all members of a cluster, with a bounded cache of each member in
// front that answers in about a hundred nanoseconds, and no server to run.
//
//	users, err := cache.New[User](cache.Config{Cluster: node, Namespace: "users"})
//	u, err := users.GetOrLoad(ctx, id, 5*time.Minute, func(ctx context.Context) (User, error) {
//		return db.User(ctx, id) // or cache.ErrNotFound
//	})
//
// What it promises:
//
//   - A value is found on every member until its time to live is over, through
//     deploys, joins, leaves and the death of one member at a time.
//   - A value that was deleted or replaced is not returned by any member that was
//     reached, from the return of the call on; a member that was cut off for a
//     second drops what it has near before it answers again. One that could not be
//     reached and yet hears others may return what it has near for at most
//     Config.NearTTL.
//   - When the store is down or its breaker is open, Get is a miss, Set and Delete
//     are remembered and made good later, GetOrLoad goes to its loader: none of
//     them fails for it, and none waits for others for longer than
//     Config.Timeout.
//   - At most one load of a key is under way on a member.
//
// What it does not promise: that a value is there. It is a cache; full members
// evict, and two deaths within a few seconds lose what had both its copies there.
// For what must not vanish there are counters here ([Counter]) and the cluster's
// tables.
//
// With Config.Cluster nil everything works in this process alone.
package cache
