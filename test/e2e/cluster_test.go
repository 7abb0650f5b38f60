package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
)

// Cluster is several members of one name.
type Cluster struct {
	t        testing.TB
	name     string
	defaults MemberOptions

	mu      sync.Mutex
	members []*Member // guarded by mu; those that are meant to be alive
	started int       // guarded by mu
}

// NewCluster starts n members: the first, then the others at once. Fields of
// defaults are for each of them.
func NewCluster(t testing.TB, n int, defaults MemberOptions) *Cluster {
	t.Helper()
	if defaults.Cluster == "" {
		defaults.Cluster = clusterName(t)
	}
	c := &Cluster{t: t, name: defaults.Cluster, defaults: defaults}
	if n == 0 {
		return c
	}
	c.Add(1)
	if n > 1 {
		c.Add(n - 1)
	}
	return c
}

// clusterName is of the test and of this run of it, so that what a killed run
// left behind is never joined.
func clusterName(t testing.TB) string {
	name := strings.Map(func(r rune) rune {
		if r < 128 && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return r
		}
		return '-'
	}, t.Name())
	return fmt.Sprintf("%.40s-%d", name, os.Getpid())
}

// Members returns those that are meant to be alive.
func (c *Cluster) Members() []*Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Member(nil), c.members...)
}

// Seeds are the gossip addresses of the members.
func (c *Cluster) Seeds() (seeds []string) {
	for _, m := range c.Members() {
		seeds = append(seeds, m.Gossip)
	}
	return seeds
}

// Options are for one more member of this cluster, with a name of its own.
func (c *Cluster) Options() MemberOptions {
	seeds := c.Seeds()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started++
	o := c.defaults
	o.Name = fmt.Sprintf("m%d", c.started)
	o.Join = append(append([]string(nil), o.Join...), seeds...)
	return o
}

// Launch starts one more member without waiting for it.
func (c *Cluster) Launch(o MemberOptions) *Member {
	c.t.Helper()
	m := LaunchMember(c.t, o)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = append(c.members, m)
	return m
}

// Add starts n more members at once, and waits until all members see each other.
func (c *Cluster) Add(n int) []*Member {
	c.t.Helper()
	added := make([]*Member, n)
	options := make([]MemberOptions, n)
	for i := range options {
		options[i] = c.Options() // all with the seeds of before
	}
	for i := range added {
		added[i] = c.Launch(options[i])
	}
	for _, m := range added {
		m.AwaitReady()
	}
	c.AwaitOneRing(startTimeout)
	return added
}

// Forget takes a member out of those that are meant to be alive.
func (c *Cluster) Forget(m *Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, other := range c.members {
		if other == m {
			c.members = append(c.members[:i:i], c.members[i+1:]...)
			return
		}
	}
}

// AwaitOneRing waits until every member that is meant to be alive sees exactly
// those, and all have the same ring.
func (c *Cluster) AwaitOneRing(timeout time.Duration) {
	c.t.Helper()
	Eventually(c.t, timeout, c.OneRing)
}

// OneRing is nil when all members that are meant to be alive see exactly those
// and the same ring.
func (c *Cluster) OneRing() error {
	members := c.Members()
	version := ""
	for _, m := range members {
		ctx, cancel := short()
		view, err := m.View(ctx)
		cancel()
		if err != nil {
			return err
		}
		alive, slots := 0, 0
		for _, other := range view.Members {
			if other.State == "alive" {
				alive++
				slots += other.OwnedSlots
			}
		}
		if alive != len(members) {
			return fmt.Errorf("%s sees %d members alive, not %d", m.Name, alive, len(members))
		}
		if slots != view.Ring.Slots || slots == 0 {
			return fmt.Errorf("%s sees owners of %d of %d slots", m.Name, slots, view.Ring.Slots)
		}
		if version == "" {
			version = view.Ring.Version
		}
		if view.Ring.Version != version {
			return fmt.Errorf("%s has ring %s, %s has %s", members[0].Name, version, m.Name, view.Ring.Version)
		}
	}
	if version == "" {
		return errors.New("no member has a ring")
	}
	return nil
}
