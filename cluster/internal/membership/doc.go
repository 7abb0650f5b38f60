// Package membership keeps the list of the members of a cluster: who is alive,
// who drains, who has left, who has died.
//
// It is hashicorp/memberlist (SWIM with the extensions of Lifeguard) with what
// a cluster of counters needs around it:
//
//   - A member is one process life, named by a boot ID. A process that comes
//     back is another member, whatever its address.
//   - Seeds are resolved again and tried again for ever, and so are the
//     addresses of members that were lost, so that members started in any order,
//     a healed partition and a recycled address all end in one cluster.
//   - A secret and the cluster's name keep clusters apart: packets and streams
//     of another one are refused, and the log says so.
//   - Deaths are remembered by boot ID, and told to newcomers, so that "dead"
//     means that somebody saw it die, never that it is missing from a list.
//
// The list is eventually consistent: members learn of a change within about
// 0.3 s, of a death after 1.5 to 3 s, and for that long they may disagree.
// Nothing that must be exact may hang on the list alone.
package membership
