//go:build !race

package cluster

// slowness is what the timings of possession are multiplied by. It is 1 but
// under the race detector, which makes everything 5 to 20 times slower: members
// would take each other for dead.
const slowness = 1
