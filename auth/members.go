package auth

import "github.com/peerlimit/peerlimit/cluster"

func newMembers(*cluster.Node) peers { return &alone{} }
