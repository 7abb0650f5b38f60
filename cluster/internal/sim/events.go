package sim

// event is something that happens at an instant.
type event struct {
	at  int64
	seq uint64  // events of one instant happen in the order they were made
	to  *member // who receives it, when it runs; nil: the world
	do  func()
}

func (e *event) before(at int64, seq uint64) bool {
	return e.at < at || e.at == at && e.seq < seq
}

// queue is a heap of events, the next one first.
type queue []event

func (q *queue) push(e event) {
	h := append(*q, e)
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !e.before(h[parent].at, h[parent].seq) {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = e
	*q = h
}

func (q *queue) pop() event {
	h := *q
	n := len(h) - 1
	top, last := h[0], h[n]
	h[n] = event{}
	h = h[:n]
	*q = h
	if n == 0 {
		return top
	}
	i := 0
	for {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && h[c+1].before(h[c].at, h[c].seq) {
			c++
		}
		if !h[c].before(last.at, last.seq) {
			break
		}
		h[i] = h[c]
		i = c
	}
	h[i] = last
	return top
}

// timer is a call's: nearly all of them come up when the call is long over.
type timer struct {
	at    int64
	seq   uint64
	c     *call
	sends int // the sending whose silence it is; 0: the end of the call
}

func (t *timer) stale() bool { return t.c.over || t.sends > 0 && t.sends != t.c.sends }

// timers all last equally long, and so come up in the order they were set.
type timers struct {
	queue []timer
	head  int
}

func (l *timers) set(t timer) {
	if l.head > 64 && l.head > len(l.queue)/2 {
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
	l.queue = append(l.queue, t)
}

// next returns the next one that is not stale, nil if there is none.
func (l *timers) next() *timer {
	for ; l.head < len(l.queue); l.head++ {
		if t := &l.queue[l.head]; !t.stale() {
			return t
		}
	}
	return nil
}
