package cluster

import "github.com/peerlimit/peerlimit/cluster/internal/crash"

func init() { crash.Node = func(node any) error { return node.(*Node).kill() } }
