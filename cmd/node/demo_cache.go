package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// demoCache is what the step with the cache found.
type demoCache struct {
	Members    int   `json:"members"`
	Tries      int   `json:"tries"`      // writes until all read it
	Found      int   `json:"found"`      // members that read the value which one of them had written
	Counted    int64 `json:"counted"`    // what the counter came to …
	Increments int64 `json:"increments"` // … by so many increments from all members at once
	Gone       int   `json:"gone"`       // members that no longer read the value once one of them had deleted it
}

// kvPatience is how long the store of values may take to get over a kill.
const kvPatience = 8 * time.Second

// shareCache writes a value by way of one member and reads it from each, counts
// on all at once, and deletes the value.
func (d *demo) shareCache(ctx context.Context) error {
	if err := d.replaceKilled(ctx); err != nil {
		return err
	}
	const value, counter = "/v1/cache/demo:greeting", "/v1/cache/demo:visits"
	first, last := d.members[0], d.members[len(d.members)-1]
	found := &demoCache{Members: len(d.members)}
	d.report.Cache = found
	// Values have a store of their own, which drops them for a second or two after
	// a member was killed: that is no failure of a cache.
	for until := time.Now().Add(kvPatience); found.Found != found.Members; {
		found.Tries++
		if _, _, err := first.client.do(ctx, http.MethodPut, value+"?ttl=1m", []byte("hello"), http.StatusNoContent); err != nil {
			return fmt.Errorf("%s: %w", first.name, err)
		}
		found.Found = 0
		for _, m := range d.members {
			text, status, err := m.client.do(ctx, http.MethodGet, value, nil, http.StatusOK, http.StatusNotFound)
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			if status == http.StatusOK && string(text) == "hello" {
				found.Found++
			}
		}
		if time.Now().After(until) {
			break
		}
		if found.Found != found.Members {
			time.Sleep(200 * time.Millisecond)
		}
	}
	d.view.say("   written by way of %s, read by %d of %d members", first.name, found.Found, found.Members)

	const each = 100
	var wait sync.WaitGroup
	errs := make([]error, len(d.members))
	for i, m := range d.members {
		wait.Go(func() {
			for n := 0; n < each && errs[i] == nil; n++ {
				var now struct{ Value int64 }
				errs[i] = d.ask(ctx, m, http.MethodPost, counter+"/incr", map[string]string{"ttl": "1m"}, &now)
			}
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	found.Increments = each * int64(len(d.members))
	var total struct{ Value int64 }
	if err := d.ask(ctx, last, http.MethodPost, counter+"/incr", map[string]any{"ttl": "1m", "delta": 0}, &total); err != nil {
		return err
	}
	found.Counted = total.Value
	d.view.say("   a counter incremented %d times by all at once: %d", found.Increments, found.Counted)

	if _, _, err := last.client.do(ctx, http.MethodDelete, value, nil, http.StatusNoContent); err != nil {
		return fmt.Errorf("%s: %w", last.name, err)
	}
	for _, m := range d.members {
		_, status, err := m.client.do(ctx, http.MethodGet, value, nil, http.StatusOK, http.StatusNotFound)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if status == http.StatusNotFound {
			found.Gone++
		}
	}
	d.view.say("   deleted by way of %s, gone from %d of %d members", last.name, found.Gone, found.Members)
	if found.Found != found.Members || found.Gone != found.Members || found.Counted != found.Increments {
		return fmt.Errorf("read by %d and gone from %d of %d members, counted %d of %d",
			found.Found, found.Gone, found.Members, found.Counted, found.Increments)
	}
	return nil
}
