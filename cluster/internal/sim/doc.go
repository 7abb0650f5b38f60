// Package sim runs members of the possession protocol in virtual time, with a
// network that delays, loses, duplicates and reorders, clocks that differ and
// drift, processes that stall, die and return, and splits that come and go.
// Everything follows from one seed: a run that fails is replayed by it.
//
// The machines and stores are those of the real cluster; only the network, the
// clock, the membership and the callers are the simulator's.
package sim
