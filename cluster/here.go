package cluster

import "github.com/peerlimit/peerlimit/cluster/internal/store"

// Here reports whether this member is, as far as it knows, the holder of the
// key with that xxhash64: an operation on it runs in this process. It costs one
// load, and may be out of date by the time it returns.
func (t *Table[S, O, R, M]) Here(hash uint64) bool {
	return t.owner == nil || t.gate.Get(uint16(hash%store.Slots)) != nil
}
