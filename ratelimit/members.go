package ratelimit

import "github.com/peerlimit/peerlimit/cluster"

// memberCount returns how many members a limit is divided by under FailLocal.
func memberCount(node *cluster.Node) func() int {
	if node == nil {
		return func() int { return 1 }
	}
	return func() int { return len(node.Members()) }
}
