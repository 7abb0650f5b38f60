package cluster

import "github.com/peerlimit/peerlimit/cluster/internal/hook"

func init() {
	hook.Crash = func(node any) error { return node.(*Node).kill() }
	hook.Settle = func(node any) { node.(*Node).owner.tellAttached() }
}
