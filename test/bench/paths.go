package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

// place says where the holder of a path's keys is, as seen from the member that
// is asked. Where there is but one place that counts, it does not matter.
type place int

const (
	anywhere  place = iota
	here            // at the member that is asked, in this process
	elsewhere       // at another member
)

// path is one kind of load.
type path struct {
	name    string
	rule    rule
	where   place
	keys    int    // how many
	prefix  string // of the keys' names
	zipf    bool   // else all keys are asked for equally often
	callers []int  // nil: those of the options
	denied  bool   // the limit is used up before the measuring begins
}

// The limits. A limit that is never reached is the usual case: a denial may be
// cheaper. Its period is so long that a permit of a bucket takes 32 ms to come
// back: with a short one a key has nothing in use a moment later, and there is
// nothing to keep or to copy, which would be cheap and is not what limits are
// like. Those that are reached have a period in which nothing comes back while
// they are measured.
const (
	neverReached = 1_000_000_000
	hotLimit     = 1_000
	zipfExponent = 1.1
)

var (
	free      = rule{Name: "bench", Limit: neverReached, Period: 365 * 24 * time.Hour}
	exhausted = rule{Name: "exhausted", Limit: hotLimit, Period: 24 * time.Hour}
	once      = rule{Name: "once", Limit: 1, Period: 24 * time.Hour}
)

// paths returns all kinds of load. serial makes the keys of limits that are
// reached new ones.
func paths(o options, serial int) []path {
	fresh := func(name string) string { return name + ":" + strconv.Itoa(serial) + ":" }
	return []path{
		{name: "holder", rule: free, where: here, keys: min(o.keys, 1024), callers: []int{1, 64}},
		{name: "remote", rule: free, where: elsewhere, keys: o.remoteKeys(), callers: o.remoteCallers()},
		{name: "uniform", rule: free, keys: o.keys},
		{name: "zipf", rule: free, keys: o.zipfKeys, zipf: true},
		{name: "hot", rule: free, where: elsewhere, keys: 1},
		{name: "denied", rule: exhausted, where: elsewhere, keys: 1, prefix: fresh("hot"), denied: true},
		{name: "denied-uniform", rule: once, keys: o.keys, prefix: fresh("once"), denied: true},
		{name: "auth", keys: 1},
		{name: "cache", keys: 1000, callers: []int{1, 16}},
		{name: "cache-near", keys: 1000, callers: []int{1, 16}},
		{name: "cache-set", keys: 1000, callers: []int{1, 16}},
	}
}

// decides tells whether a path is about limits.
func (p *path) decides() bool { return p.rule.Limit > 0 }

// names returns the names of the first n keys of a path.
func (p *path) names(n int) []string {
	if p.prefix == "" {
		return accounts(n)
	}
	names := make([]string, n)
	for i := range names {
		names[i] = p.prefix + scattered(i)
	}
	return names
}

// scattered writes a number so that those that follow each other differ in most
// digits, as identities in real keys do: FNV-1, by which Gubernator finds a
// key's owner, gives keys that differ in their last bytes only the same one.
func scattered(i int) string {
	const odd = 2_654_435_769 // 2³² divided by the golden ratio: multiplied by it, no two numbers become the same
	return fmt.Sprintf("%08x", uint32(i)*odd)
}

var (
	accountsLock sync.Mutex
	accountNames []string
)

// accounts returns n names, the same ones each time.
func accounts(n int) []string {
	accountsLock.Lock()
	defer accountsLock.Unlock()
	for i := len(accountNames); i < n; i++ {
		accountNames = append(accountNames, "account:"+scattered(i))
	}
	return accountNames[:n:n]
}

// drawn is how many draws of keys are made ahead, so that drawing costs the
// callers nothing: a power of two. Callers begin at different ones.
const drawn = 1 << 18

// draws returns which key to ask for, one call after the other.
func draws(n int, zipf bool) []uint32 {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	all := make([]uint32, drawn)
	if zipf && n > 1 {
		ranks := rand.NewZipf(random, zipfExponent, 1, uint64(n-1))
		for i := range all {
			all[i] = uint32(ranks.Uint64())
		}
		return all
	}
	for i := range all {
		all[i] = uint32(random.IntN(n))
	}
	return all
}

// candidates is among how many keys enough are where a path wants them: of three
// members each holds about a third.
func (p *path) candidates() int {
	if p.where == here {
		return 4*p.keys + 100
	}
	return 2*p.keys + 100
}
