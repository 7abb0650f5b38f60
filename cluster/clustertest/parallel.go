//go:build !race

package clustertest

// parallel is how many parallel tests run at a time: tests with members mostly
// wait, so more than there are processors.
const parallel = "4"
