// Package possess decides which member serves a slot. It is the protocol that
// keeps a counter right through stalls, deaths, joins, leaves and splits:
// primary-backup replication fenced by time-bounded promises (leases in the
// sense of Gray and Cheriton, 1989, called grants here).
//
// A [Machine] is one member's part of it: messages, ticks and views of the
// membership go in, messages and orders to the [Port] come out. It has no
// socket, no goroutine, no lock and no clock of its own, so that a simulator
// can run ten thousand bad days in a minute; its caller sees to it that one
// call at a time is made.
//
// Words. A member is one process life, named by its boot ID. The ring says who
// should hold a slot, possession says who serves it. Epochs of a slot only
// rise. The holder names one backup, with a view number that rises each time
// it names another; (epoch, view) orders everything that is known of a slot.
// A backup's grant to the holder is its promise not to serve for 150 ms.
//
// What is promised, and with what the simulator broke earlier wordings, is in
// DESIGN.md of package cluster.
package possess
