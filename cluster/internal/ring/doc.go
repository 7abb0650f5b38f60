// Package ring says which member should hold which slot.
//
// A key belongs to one of 16,384 slots, and each slot orders the members by
// rendezvous hashing (Thaler and Ravishankar, "Using Name-Based Mappings to
// Increase Hit Rates", 1998): the member with the highest hash of (slot,
// member) comes first. So two members with the same list of members agree on
// every slot without a word, and a member that joins or leaves moves only the
// slots it gains or loses.
//
// A Ring is a pure function of the set of members, immutable, and safe for
// concurrent use. It says who should hold a slot; who does hold it is the
// possession protocol's to say.
//
// The order is a matter of chance, so the shares of the members differ a
// little: the standard deviation of a share is about √(N/16384) of it, which is
// 3.5 % with 20 members and 8 % with 100.
package ring
