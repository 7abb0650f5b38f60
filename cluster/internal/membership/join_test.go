package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// attempts is the network a joiner under test tries.
type attempts struct {
	mu    sync.Mutex
	begin time.Time
	at    map[string][]time.Duration
	join  func(addr string) error
}

func (a *attempts) try(ap netip.AddrPort) error {
	a.mu.Lock()
	a.at[ap.String()] = append(a.at[ap.String()], time.Since(a.begin))
	join := a.join
	a.mu.Unlock()
	if join == nil { // the test is about to set it, and then waits
		time.Sleep(time.Nanosecond)
		a.mu.Lock()
		join = a.join
		a.mu.Unlock()
	}
	return join(ap.String())
}

func (a *attempts) count(addr string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at[addr])
}

// runJoiner runs a joiner in a bubble of its own, with its clock.
func runJoiner(t *testing.T, seeds []string, join func(string) error, f func(*joiner, *attempts)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := &attempts{begin: time.Now(), at: make(map[string][]time.Duration), join: join}
		j := newJoiner(2*time.Second, time.Now)
		j.join = a.try
		j.table = newTable(testMember(1), time.Now)
		j.log = slog.New(slog.DiscardHandler)
		j.seeds = seedList9(t, new(names), seeds...)
		own := netip.MustParseAddrPort("10.0.0.1:1")
		j.own = ownAddresses{advertise: own, bound: own}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); j.run(ctx) }()
		f(j, a)
		cancel()
		<-done
	})
}

func isSettled(j *joiner) bool {
	synctest.Wait()
	select {
	case <-j.settled:
		return true
	default:
		return false
	}
}

var errRefusedConn = errors.New("connection refused")

func TestWithoutSeedsItServesAtOnce(t *testing.T) {
	runJoiner(t, nil, nil, func(j *joiner, a *attempts) {
		assert.True(t, isSettled(j))
		state, _ := j.status()
		assert.Equal(t, Alone, state)
		j.table.alive(testMember(2))
		j.check()
		state, _ = j.status()
		assert.Equal(t, InCluster, state)
	})
}

func TestSilentSeedsAreWaitedForTwoSeconds(t *testing.T) {
	seed := "10.0.0.2:7"
	runJoiner(t, []string{seed, "10.0.0.1:1"}, func(string) error { return errRefusedConn }, func(j *joiner, a *attempts) {
		time.Sleep(1999 * time.Millisecond)
		assert.False(t, isSettled(j))
		n := a.count(seed)
		assert.True(t, n >= 4 && n <= 9, "%d tries", n)
		time.Sleep(2 * time.Millisecond)
		assert.True(t, isSettled(j))
		state, _ := j.status()
		assert.Equal(t, Unanswered, state)
		time.Sleep(10 * time.Minute)
		n = a.count(seed) - n
		assert.True(t, n > 600/5 && n < 600/2, "%d tries in the ten minutes after that", n)
		assert.Zero(t, a.count("10.0.0.1:1"), "it does not join itself")
	})
}

func TestASeedThatHangsDoesNotDelayTheOthers(t *testing.T) {
	hang, good := "10.0.0.2:7", "10.0.0.3:7"
	var j2 *joiner
	var mu sync.Mutex
	runJoiner(t, []string{hang, good}, func(addr string) error {
		if addr == hang {
			time.Sleep(2 * time.Second)
			return errors.New("i/o timeout")
		}
		time.Sleep(time.Nanosecond) // until j2 is set
		mu.Lock()
		defer mu.Unlock()
		j2.table.alive(testMember(2))
		return nil
	}, func(j *joiner, a *attempts) {
		mu.Lock()
		j2 = j
		mu.Unlock()
		time.Sleep(time.Millisecond)
		assert.True(t, isSettled(j))
		time.Sleep(time.Second)
		assert.Equal(t, 1, a.count(hang), "one try at a time at each address")
	})
}

// While the only address hangs there is nothing else to try; that must not be
// taken for there being nothing to try.
func TestAnAddressThatHangsIsTriedAgainSoon(t *testing.T) {
	hang := "10.0.0.2:7"
	runJoiner(t, []string{hang}, func(string) error {
		time.Sleep(2 * time.Second)
		return errors.New("i/o timeout")
	}, func(j *joiner, a *attempts) {
		time.Sleep(time.Hour)
		a.mu.Lock()
		defer a.mu.Unlock()
		for i, at := range a.at[hang][1:] {
			assert.LessOrEqual(t, at-a.at[hang][i], 7*time.Second, "from one try to the next")
		}
	})
}

func TestARefusalKeepsItFromServing(t *testing.T) {
	refuse := true
	seed := "10.0.0.2:7"
	runJoiner(t, []string{seed}, nil, func(j *joiner, a *attempts) {
		a.mu.Lock()
		a.join = func(string) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			if refuse {
				return errors.New("no installed keys could decrypt the message")
			}
			return errRefusedConn
		}
		a.mu.Unlock()
		time.Sleep(time.Minute)
		assert.False(t, isSettled(j))
		state, reason := j.status()
		assert.Equal(t, Refused, state)
		assert.Contains(t, reason, seed)
		a.mu.Lock()
		refuse = false // it has gone
		a.mu.Unlock()
		time.Sleep(4 * time.Second)
		assert.True(t, isSettled(j))
		state, reason = j.status()
		assert.Equal(t, Unanswered, state)
		assert.Empty(t, reason)
	})
}

func TestARefusalThatIsNotRepeatedRunsOut(t *testing.T) {
	tries := 0
	runJoiner(t, []string{"10.0.0.2:7"}, nil, func(j *joiner, a *attempts) {
		a.mu.Lock()
		a.join = func(string) error {
			a.mu.Lock()
			tries++
			first := tries == 1
			a.mu.Unlock()
			if first {
				return errors.New("no installed keys could decrypt the message")
			}
			time.Sleep(time.Minute) // as under a load that lets nothing through
			return errRefusedConn
		}
		a.mu.Unlock()
		time.Sleep(refusedFor - 100*time.Millisecond)
		assert.False(t, isSettled(j), "it was refused, and nothing has been heard to the contrary")
		time.Sleep(10 * time.Second)
		assert.True(t, isSettled(j))
		time.Sleep(time.Minute)
	})
}

func TestLostMembersAreTriedForADay(t *testing.T) {
	runJoiner(t, nil, func(string) error { return errRefusedConn }, func(j *joiner, a *attempts) {
		lost, left := testMember(2), testMember(3)
		j.table.alive(lost)
		j.table.alive(left)
		j.check()
		time.Sleep(time.Minute)
		addr := lost.Gossip.String()
		assert.Zero(t, a.count(addr), "it is alive")
		j.table.leaving(left.Boot)
		j.table.gone(left.Boot, false)
		j.table.gone(lost.Boot, false)
		j.poke()
		time.Sleep(time.Second)
		assert.Positive(t, a.count(addr), "soon after the loss")
		for range 6 {
			before := a.count(addr)
			time.Sleep(time.Hour)
			n := a.count(addr) - before
			assert.True(t, n >= 60*12 && n <= 60*30, "%d tries an hour, so a healed split is found within 5 s", n)
		}
		time.Sleep(rememberFor)
		before := a.count(addr)
		time.Sleep(10 * time.Minute)
		assert.Equal(t, before, a.count(addr))
		assert.Zero(t, a.count(left.Gossip.String()), "one that has left is left alone")
	})
}

func TestManyAddressesAreTriedByAndBy(t *testing.T) {
	var seeds []string
	for i := range 40 {
		seeds = append(seeds, fmt.Sprintf("10.0.1.%d:7", i))
	}
	inFlight, most := 0, 0
	runJoiner(t, seeds, nil, func(j *joiner, a *attempts) {
		a.mu.Lock()
		a.join = func(string) error {
			a.mu.Lock()
			inFlight++
			most = max(most, inFlight)
			a.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			a.mu.Lock()
			inFlight--
			a.mu.Unlock()
			return errRefusedConn
		}
		a.mu.Unlock()
		time.Sleep(5 * time.Minute)
		a.mu.Lock()
		defer a.mu.Unlock()
		assert.Len(t, a.at, 40, "each has its turn")
		assert.LessOrEqual(t, most, 2*triesAtOnce, "a round is short where the time to serve alone has come, and may begin before the one before has ended")
	})
}

func TestAStrangerIsTriedAtOnce(t *testing.T) {
	runJoiner(t, nil, func(string) error { return errRefusedConn }, func(j *joiner, a *attempts) {
		synctest.Wait()
		for i := range 20 {
			j.stranger(fmt.Sprintf("10.0.9.%d:7946", i))
		}
		j.stranger("nonsense")
		j.stranger("10.0.0.1:1")
		time.Sleep(time.Second)
		a.mu.Lock()
		tried := len(a.at)
		a.mu.Unlock()
		assert.Equal(t, triesAtOnce, tried, "no more than that, whatever is said")
		time.Sleep(strangerFor + 5*time.Second)
		a.mu.Lock()
		before := fmt.Sprint(a.at)
		a.mu.Unlock()
		time.Sleep(time.Minute)
		a.mu.Lock()
		defer a.mu.Unlock()
		assert.Equal(t, before, fmt.Sprint(a.at), "forgotten")
	})
}

func TestWarningsAreNotRepeated(t *testing.T) {
	log := new(logBuffer)
	now := time.Unix(1000, 0)
	j := newJoiner(time.Second, func() time.Time { return now })
	j.log = slog.New(slog.NewTextHandler(log, nil))
	for range 5 {
		j.warn("k", "said")
	}
	assert.Equal(t, 1, countOf(log, "msg=said"))
	now = now.Add(warnEvery)
	j.warn("k", "said")
	assert.Equal(t, 2, countOf(log, "msg=said"))
	for i := range 3 * maxWarned {
		j.warn(fmt.Sprint(i), "other")
	}
	assert.LessOrEqual(t, len(j.warned), maxWarned)
}

func countOf(log *logBuffer, text string) int {
	n, s := 0, log.String()
	for i := 0; i+len(text) <= len(s); i++ {
		if s[i:i+len(text)] == text {
			n++
		}
	}
	return n
}
