package cluster

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
)

func TestEventsComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEvents()
		defer e.close()
		var first, second []uint64
		e.send(Event{Member: Member{Boot: 99}}) // before anybody watches
		stop := e.watch(func(ev Event) { first = append(first, ev.Member.Boot) })
		e.watch(func(ev Event) { second = append(second, ev.Member.Boot) })
		for i := range uint64(3) {
			e.send(Event{Member: Member{Boot: i}})
		}
		synctest.Wait()
		stop()
		stop()
		e.send(Event{Member: Member{Boot: 3}})
		synctest.Wait()
		assert.Equal(t, []uint64{0, 1, 2}, first)
		assert.Equal(t, []uint64{0, 1, 2, 3}, second)
	})
}

func TestASlowWatcherLosesTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEvents()
		defer e.close()
		gate := make(chan struct{})
		var got []uint64
		e.watch(func(ev Event) {
			<-gate
			got = append(got, ev.Member.Boot)
		})
		e.send(Event{Member: Member{Boot: 0}})
		synctest.Wait() // it is being watched now
		for i := range uint64(maxEvents + 10) {
			e.send(Event{Member: Member{Boot: i + 1}})
		}
		close(gate)
		synctest.Wait()
		assert.Len(t, got, maxEvents+1)
		assert.Equal(t, "[0 11 12]", fmt.Sprint(got[:3]))
	})
}

func TestAWatcherMayWatchAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEvents()
		defer e.close()
		calls := 0
		var stop func()
		stop = e.watch(func(Event) {
			calls++
			stop()
			e.watch(func(Event) { calls += 10 })
		})
		e.send(Event{})
		synctest.Wait()
		e.send(Event{})
		synctest.Wait()
		assert.Equal(t, 11, calls)
	})
}
