// Package e2e tests peerlimit from outside: real processes of cmd/node, real
// signals, HTTP, and network namespaces where there are partitions to make.
//
// It has no code but tests. What they are built on, in the order in which to
// read it: main_test.go builds the binary, member_test.go is one process,
// cluster_test.go several of them, api_test.go what is asked of them,
// load_test.go a load that goes on while things happen, echo_test.go a control
// that tells a slow member from a slow machine, netns_test.go a network of
// their own. Long parts run where PEERLIMIT_SOAK says so; see soak_test.go. With
// PEERLIMIT_TEST_LEASES=off all members do without leases.
package e2e
