// Package cluster makes the processes of a service members of a small
// peer-to-peer cluster: they find one another, agree on who should hold what,
// and call one another.
//
// A [Node] is one member. [Start] makes it listen and join, [Node.Close] hands
// over what it holds and leaves. A [Table] is a set of small state machines
// that the members run together, each key at one of them; limits and counters
// are built on it. [Node.Call], [Node.Broadcast] and [Node.Handle] carry
// messages between members.
//
// What is promised:
//
//   - Members started in any order, or all at once, end in one cluster, and so
//     do the parts of one that was split, within 10 s of healing. Members with
//     another secret or another cluster's name stay out.
//   - A process that comes back is a new member, and is never taken for its
//     former self.
//   - A member serves nothing before it has joined, or no address in
//     Config.Join has answered for Config.JoinTimeout.
//   - A member that leaves by Drain or Close hands over what it holds first.
//
// What is not: the list of members is not a consensus. Members may disagree
// about it for the 1.5 to 3 s that a death takes to be noticed, and each part
// of a split network goes on by itself unless Config.MinMembers forbids it.
package cluster
