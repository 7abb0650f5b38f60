//go:build !race

package kv

// slowness is what the timings of failure detection are multiplied by. It is 1
// but under the race detector: there everything is slow, and a member that is
// suspected in vain shows a data race that is olric's (its discovery reads the
// Meta of a memberlist.Node, which memberlist writes when the member refutes).
const slowness = 1
