// Package kv is the cluster's store of values that can be loaded again, on
// embedded olric (github.com/olric-data/olric v0.7.4).
//
// It promises that a value which was set is found on every member until its
// time to live is over, through joins, graceful leaves and the death of one
// member at a time; that a deleted key stays deleted; and that every call
// returns within a bounded time. It does not promise that a value is there: a
// full member evicts, two deaths within a few seconds lose what had both its
// copies there, and while olric is unusable every call says [ErrUnavailable].
// It never counts, and nothing that must not vanish or come back may be kept
// in it.
//
// # What is olric's part, and what is not
//
// Olric finds members, assigns partitions to them, and carries reads and
// writes to the owner of a key and its one backup; once members have not changed
// for ten seconds reads and writes go to the owner by one call, past olric's
// client (settled.go). Of its calls only Get and
// Put are used: its Incr locks on the calling member only, its Expire through
// a member that isn't the owner erases the value, and its asynchronous
// replication loses writes (evidence_test.go keeps the proof).
//
// Its storage engine is replaced by ours (engine.go). In v0.7.4's own, an
// entry that is overwritten in a second table leaves the old one in the first:
// deleting the new one brings the old one back, compacting the first table
// puts the old value over the new (internal/kvstore/kvstore.go, Delete;
// compaction.go, evictTable); a replica that is overwritten never frees the
// old bytes (table.go, PutRaw); two keys with one 64-bit hash are one entry;
// and each partition takes a table of a fixed size, which also is the bound of
// a value. Ours keeps what it is given, nothing more, and decides by a version
// in the value itself which of two writes is the later one.
//
// # What it holds off
//
// Olric's server listens on loopback only and with a password that is made anew
// for each start and never leaves the process: members connect to each other
// through the peer port, under its TLS, and this package logs in for them.
// Redcon, which that server is made of, can be kept busy by a single line before
// it asks for the password; whoever can send that is on this machine already.
//
// # Figures
//
// There are 127 partitions ([partitionCount]) and no tables. A process that has
// only this package running, idle with two others, has 26 MiB resident
// (TestIdleMemory; olric's own engine: 37 MiB with tables of 64 KiB, 310 MiB as
// it comes), and an entry costs its key, its value, 21 bytes and about 64 of the
// map. When a member leaves, calls for its keys take up to 70 ms longer for a
// moment and none fails (TestLeaveUnderLoad); when one is killed, calls for its
// keys fail for the 2 to 3 s until that is seen, after which everything is there
// from its other copy, and has two again 2 to 3 s later (TestKilledMember).
package kv
