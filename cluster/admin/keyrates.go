package admin

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

const (
	keysKept  = 512  // in a keyRates
	keyMemory = 60.0 // seconds after which a decision counts 1/e for its key's rate
	forgotten = 0.5  // decisions: a key with less is dropped
)

// keyRates finds the keys that most weight is added to, with a fixed amount of
// memory: Space-Saving of Metwally, Agrawal and El Abbadi, "Efficient Computation
// of Frequent and Top-k Elements in Data Streams" (ICDT 2005). A key that is not
// among those kept takes the place of the lightest, and its weight too, for that
// is the most it may have had before; so a key with more than 1/512 of all the
// weight is always kept. Weights fade exponentially, all alike, which changes
// nothing in that. The zero value is empty. It has no lock.
type keyRates struct {
	index map[uint64]int // by hash: where it is in kept
	kept  []keyWeight
}

type keyWeight struct {
	hash          uint64
	policy, shown string
	weight        float64 // at most, in decisions
	inherited     float64 // the part that may be others'
}

// keyRate is a key that is in a list, without the key itself. Hash is of policy
// and key, and tells members' lists apart from one another's; it is not shown.
type keyRate struct {
	Policy    string  `json:"policy"`
	Key       string  `json:"key"` // as Shown has it
	PerSecond float64 `json:"per_second"`
	Hash      uint64  `json:"hash,omitempty"`
}

// add adds weight to a key. Its text is looked at only where it is new.
func (k *keyRates) add(hash uint64, policy, key string, weight float64) {
	if i, ok := k.index[hash]; ok {
		k.kept[i].weight += weight
		return
	}
	if k.index == nil {
		k.index = make(map[uint64]int, keysKept)
	}
	fresh := keyWeight{hash: hash, policy: strings.Clone(policy), shown: Shown(key), weight: weight}
	if len(k.kept) < keysKept {
		k.index[hash] = len(k.kept)
		k.kept = append(k.kept, fresh)
		return
	}
	least := 0 // a walk over 512, a thousand times a second at most, needs no heap
	for i := range k.kept {
		if k.kept[i].weight < k.kept[least].weight {
			least = i
		}
	}
	fresh.inherited = k.kept[least].weight
	fresh.weight += fresh.inherited
	delete(k.index, k.kept[least].hash)
	k.index[hash] = least
	k.kept[least] = fresh
}

// fade lets seconds pass.
func (k *keyRates) fade(seconds int64) {
	left := math.Exp(-float64(seconds) / keyMemory)
	kept := k.kept[:0]
	for _, w := range k.kept {
		w.weight *= left
		w.inherited *= left
		if w.weight < forgotten {
			delete(k.index, w.hash)
			continue
		}
		k.index[w.hash] = len(kept)
		kept = append(kept, w)
	}
	clear(k.kept[len(kept):])
	k.kept = kept
}

// top returns at most n keys, the fastest first, with what they have had for
// certain a second. age is how long weight has been added, in seconds.
func (k *keyRates) top(n int, age float64) []keyRate {
	over := keyMemory * (1 - math.Exp(-max(age, 1)/keyMemory)) // what a weight of one a second comes to
	list := make([]keyRate, 0, len(k.kept))
	for _, w := range k.kept {
		if own := w.weight - w.inherited; own >= forgotten {
			list = append(list, keyRate{Policy: w.policy, Key: w.shown, PerSecond: own / over, Hash: w.hash})
		}
	}
	return fastest(list, n)
}

// fastest sorts list and cuts it to n.
func fastest(list []keyRate, n int) []keyRate {
	slices.SortFunc(list, func(a, b keyRate) int {
		return cmp.Or(cmp.Compare(b.PerSecond, a.PerSecond), cmp.Compare(a.Policy, b.Policy),
			cmp.Compare(a.Key, b.Key), cmp.Compare(a.Hash, b.Hash))
	})
	return list[:min(n, len(list))]
}
