// Package crash lets tests outside package cluster end a member as a crash
// would: without draining and without a goodbye.
package crash

// Node ends a *cluster.Node and waits until nothing of it runs. Package cluster
// sets it.
var Node func(node any) error
