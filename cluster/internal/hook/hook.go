// Package hook lets the tests of other packages do with a *cluster.Node what
// programs can't. Package cluster sets its functions.
package hook

var (
	// Crash ends a member as a crash would, without draining and without a
	// goodbye, and waits until nothing of it runs.
	Crash func(node any) error
	// Settle has a member that starts wait no longer for its program's tables.
	Settle func(node any)
)
