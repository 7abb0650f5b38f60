package cache

import (
	"context"
	"time"
)

const (
	// silence is how long no other member must have been heard for this one to
	// count as cut off.
	silence = time.Second
	// pulseEvery is how often that is looked at.
	pulseEvery = 100 * time.Millisecond
)

// pulse decides until when what is near may be used. It is a pure function of
// what it is told.
type pulse struct {
	goodUntil time.Time // zero: never looked
	others    bool      // there were others at the last look
}

// look returns until when entries may be used from now on, and whether all of
// them must be dropped first: because nobody was heard for a second, or this
// process itself stood still for that long, or others have come, who may have
// written while they were not here.
func (p *pulse) look(now, lastHeard time.Time) (goodUntil time.Time, drop bool) {
	others := !lastHeard.IsZero()
	first := p.goodUntil.IsZero()
	drop = !first && (!now.Before(p.goodUntil) || others && !p.others)
	p.others = others
	p.goodUntil = now.Add(silence)
	if others {
		p.goodUntil = lastHeard.Add(silence)
	}
	return p.goodUntil, drop
}

// watchPulse looks until ctx ends.
func (c *Cache[V]) watchPulse(ctx context.Context, h Hearing, p *pulse) {
	ticker := time.NewTicker(pulseEvery)
	defer ticker.Stop()
	cut := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		goodUntil := c.lookOnce(now, h, p)
		if gone := !now.Before(goodUntil); gone != cut {
			cut = gone
			if cut {
				c.cfg.Logger.Warn("cut off: what is cached near is not used", "namespace", c.cfg.Namespace)
			} else {
				c.cfg.Logger.Info("no longer cut off", "namespace", c.cfg.Namespace)
			}
		}
	}
}

func (c *Cache[V]) lookOnce(now time.Time, h Hearing, p *pulse) time.Time {
	goodUntil, drop := p.look(now, h.LastHeard())
	if drop {
		// Nothing may be used before it is dropped.
		c.trust.End()
		c.near.DropAll()
		c.negative.DropAll()
		c.stats.nearDropped.Add(1)
	}
	c.trust.Until(goodUntil)
	return goodUntil
}
