package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// peerlimit is this process as a member, which is how it is embedded, and more
// processes.
type peerlimit struct {
	members int // in all
	tls     bool
	quick   bool

	own    *member
	others []*child
}

// startedAtOnce bounds the members that start at a time: they share few cores.
const startedAtOnce = 4

func (p *peerlimit) name() string     { return "peerlimit" }
func (p *peerlimit) missing() string  { return "" }
func (p *peerlimit) processes() []int { return pids(p.others) }

func (p *peerlimit) start(ctx context.Context, _ int) error {
	if err := p.launch(ctx); err != nil {
		return err
	}
	settled, err := p.settle(ctx, startTime/2)
	if err == nil && !settled {
		err = errors.New("the members have not settled: is the machine busy?")
	}
	return err
}

// launch starts all members.
func (p *peerlimit) launch(ctx context.Context) (err error) {
	s := settings{Cluster: "bench-" + strconv.Itoa(os.Getpid()), ID: "bench-01"}
	if p.tls {
		s.Secret = newSecret()
	}
	if p.own, err = startMember(ctx, s); err != nil {
		return err
	}
	p.own.hasty = p.quick
	s.Join = []string{p.own.node.Self().Gossip}
	started := make([]*child, p.members-1)
	failed := make([]error, len(started))
	for first := 0; first < len(started); first += startedAtOnce {
		var wait sync.WaitGroup
		for i := first; i < min(first+startedAtOnce, len(started)); i++ {
			own := s
			own.ID = fmt.Sprintf("bench-%02d", i+2)
			wait.Go(func() { started[i], failed[i] = startSelf(ctx, memberCommand, own) })
		}
		wait.Wait()
	}
	p.others = slices.DeleteFunc(started, func(c *child) bool { return c == nil })
	return errors.Join(failed...)
}

// settle waits until each member has its share of the slots, and none of them is
// without a copy; false after that long.
func (p *peerlimit) settle(ctx context.Context, patience time.Duration) (bool, error) {
	for begin := time.Now(); ; {
		settled := settledOn(p.own.node.Status(), p.members)
		for _, other := range p.others {
			var stats memberStats
			if !settled {
				break
			}
			if _, err := other.call(ctx, order{Do: doStats}, &stats); err != nil {
				return false, err
			}
			settled = stats.Settled(p.members)
		}
		if settled || time.Since(begin) > patience {
			return settled, nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return false, err
		}
	}
}

func settledOn(s cluster.Status, members int) bool {
	return s.Ready && len(s.Members) == members && s.Possession.Unprotected == 0 &&
		s.Possession.Slots > 0 && s.Possession.Waiting == 0
}

func newSecret() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // it never fails: see crypto/rand
	return hex.EncodeToString(secret)
}

func (p *peerlimit) prepare(ctx context.Context, path path) (*job, error) {
	if !path.decides() {
		return p.own.valuesJob(ctx, path.name)
	}
	keys, err := p.own.pick(ctx, path)
	if err != nil {
		return nil, err
	}
	return &job{
		ask: p.own.asker(path.rule), keys: keys, refills: true,
		spend: func(ctx context.Context, key string, calls int) (int64, error) {
			return p.spend(ctx, order{Do: doSpend, Rule: path.rule, Key: key, Calls: calls / p.members})
		},
	}, nil
}

// spend lets all members follow an order at once, and returns how many calls
// were allowed.
func (p *peerlimit) spend(ctx context.Context, o order) (int64, error) {
	var (
		wait     sync.WaitGroup
		admitted = make([]counted, p.members)
		failed   = make([]error, p.members)
	)
	for i, other := range p.others {
		wait.Go(func() { _, failed[i+1] = other.call(ctx, o, &admitted[i+1]) })
	}
	admitted[0], failed[0] = p.own.spend(ctx, o)
	wait.Wait()
	var sum int64
	for _, a := range admitted {
		sum += a.Admitted
	}
	return sum, errors.Join(failed...)
}

// takeOvers is how many slots members have taken over from others that fell
// silent: on a machine that is too busy some do.
func (p *peerlimit) takeOvers(ctx context.Context) (uint64, error) {
	sum := p.own.takeOvers()
	for _, other := range p.others {
		var n uint64
		if _, err := other.call(ctx, order{Do: doTaken}, &n); err != nil {
			return sum, err
		}
		sum += n
	}
	return sum, nil
}

// close ends all members at once. What they counted is of no use to anybody, so
// that nobody took it over is no failure.
func (p *peerlimit) close() error {
	killAll(p.others)
	p.others = nil
	own := p.own
	p.own = nil
	return own.close()
}
