// Package peer carries everything members of a cluster say to one another: raw frames for owned tables, calls with
// answers, broadcasts, and byte streams, all through one TCP port.
//
// It promises:
//
//   - a frame reaches the process life (boot ID) it is meant for, or nobody: a process that came back at the same
//     address answers "gone";
//   - frames of one lane to one peer arrive in the order they were sent, at most once, as long as no [Loss] is
//     reported for that lane; when one is, any frame sent before it may or may not have arrived;
//   - [Transport.Send] never waits for the network, and what waits is bounded in bytes;
//   - with a secret or certificates, only members that have them are heard, over TLS 1.3. Without, only loopback is
//     used;
//   - whatever is malformed closes its connection and is counted by reason ([Stats]).
//
// It does not retry a frame, store one for later, know who holds what, or decide who is a member: membership tells it
// the addresses ([Transport.SetPeers]).
//
// # On the wire
//
// A frame is a header of 32 bytes and a payload, integers in network byte order:
//
//	length 4   bytes that follow this field
//	type 1     below TypeUser: this package's; the rest is the caller's
//	version 1  of the protocol, as agreed by the hello
//	slot 2, ID 8, target boot ID 8, slot epoch 8
//
// A frame has at most 1 MiB, and at most 64 bytes before the peer is known. A connection begins with a hello and its
// answer (hello.go); then it is a lane's, and frames go both ways, or a byte stream's. Each lane has a connection of its
// own, so that a bulk copy never delays an operation.
package peer
