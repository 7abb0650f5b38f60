package ring

import "github.com/cespare/xxhash/v2"

// Slots is the number of slots, the same in every cluster for ever: it is part
// of the protocol. A power of two, so that the remainder costs nothing.
const Slots = 16384

// Slot returns the slot of key, 0 to Slots-1: xxhash64 (seed 0) modulo Slots.
func Slot(key []byte) uint16 {
	return uint16(xxhash.Sum64(key) % Slots)
}

// SlotString is Slot for a string. It does not allocate.
func SlotString(key string) uint16 {
	return uint16(xxhash.Sum64String(key) % Slots)
}
