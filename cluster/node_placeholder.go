// Package cluster: placeholder file, to be deleted when node.go arrives.
package cluster

// Node is one member.
type Node struct{}
