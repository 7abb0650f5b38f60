package cluster

import "sync"

// recent remembers the answers to other members' latest operations, and which
// of them still wait for the backup, so that one which is sent again because its
// answer was late is answered and not run a second time. It is this member's alone: what ran at a holder that died may
// run again at the next.
type recent struct{ shards [64]recentShard }

// recentKept is how many answers a shard remembers. All shards together keep
// 8,192: a tenth of a second, after which a caller asks again, at 80,000
// operations a second.
const recentKept = 128

type recentShard struct {
	mu      sync.Mutex
	next    int
	ring    [recentKept]recentAnswer
	waiting map[uint64]struct{} // operations that ran here and wait for the backup
}

type recentAnswer struct {
	id    uint64
	n     uint8
	bytes [40]byte
}

func (r *recent) shard(id uint64) *recentShard { return &r.shards[id>>32%uint64(len(r.shards))] }

// put remembers the answer to id. One of more than 40 bytes is not kept.
func (r *recent) put(id uint64, result []byte) {
	if len(result) > len(recentAnswer{}.bytes) {
		return
	}
	sh := r.shard(id)
	sh.mu.Lock()
	a := &sh.ring[sh.next%recentKept]
	sh.next++
	a.id, a.n = id, uint8(copy(a.bytes[:], result))
	sh.mu.Unlock()
}

// get returns the answer to id, if it is remembered.
func (r *recent) get(id uint64) (result []byte, ok bool) {
	sh := r.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for i := range sh.ring {
		if a := &sh.ring[i]; a.id == id {
			return append([]byte(nil), a.bytes[:a.n]...), true
		}
	}
	return nil, false
}

// wait notes that id has run and waits for the backup; waited that it does no more.
func (r *recent) wait(id uint64) {
	sh := r.shard(id)
	sh.mu.Lock()
	if sh.waiting == nil {
		sh.waiting = make(map[uint64]struct{})
	}
	sh.waiting[id] = struct{}{}
	sh.mu.Unlock()
}

func (r *recent) waited(id uint64) {
	sh := r.shard(id)
	sh.mu.Lock()
	delete(sh.waiting, id)
	sh.mu.Unlock()
}

// waits reports whether id has run and waits for the backup.
func (r *recent) waits(id uint64) bool {
	sh := r.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, ok := sh.waiting[id]
	return ok
}
