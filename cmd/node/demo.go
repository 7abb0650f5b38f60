package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// demoCommand shows the main job with real processes on loopback: a limit that
// holds exactly over three members, and goes on holding when one of them is
// killed.
type demoCommand struct {
	JSON bool `name:"json" help:"Print one JSON object instead: the counts of each round, and ok."`
}

// demoMembers is how many processes the demo starts.
const demoMembers = 3

// demoDeadline is when the demo gives up. It takes some seconds.
const demoDeadline = 28 * time.Second

// demoRound is what a round counted.
type demoRound struct {
	Name    string `json:"name"`
	Limit   int    `json:"limit"`
	Sent    int    `json:"sent"`
	Allowed int    `json:"allowed"`
	Denied  int    `json:"denied"`
	Errors  int    `json:"errors"`
}

// demoReport is what --json prints.
type demoReport struct {
	Rounds     []demoRound     `json:"rounds"`
	Cache      *demoCache      `json:"cache,omitempty"`
	Revocation *demoRevocation `json:"revocation,omitempty"`
	OK         bool            `json:"ok"`
}

// demo is what the steps share.
type demo struct {
	dir     string // for logs and the store of keys
	logs    int    // how many logs there are
	members []*demoMember
	view    *demoView
	report  demoReport
}

// demoSteps is what is shown, in order. A step says what it found in the
// report and on the view, and returns an error when something did not hold.
var demoSteps = []struct {
	title string
	run   func(*demo, context.Context) error
}{
	{"one limit, three processes", (*demo).steadyRound},
	{"the same, and one of them is killed", (*demo).killRound},
	{"a value and a counter that all share", (*demo).shareCache},
	{"an API key, revoked", (*demo).revoke},
}

// Run starts the members, shows each step, and stops everything again. What did
// not hold is the error.
func (c *demoCommand) Run(ctx context.Context, env *environment) (err error) {
	ctx, cancel := context.WithTimeout(ctx, demoDeadline)
	defer cancel()
	d := &demo{view: newDemoView(env.stdout, c.JSON)}
	if d.dir, err = os.MkdirTemp("", "peerlimit-demo-"); err != nil {
		return err
	}
	defer func() {
		stopErr := d.stopMembers()
		if err = errors.Join(err, stopErr); err != nil {
			if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				err = fmt.Errorf("not done within %s: %w", demoDeadline, err)
			}
			if errors.Is(ctx.Err(), context.Canceled) {
				err = errors.Join(errors.New("demo: interrupted"), os.RemoveAll(d.dir))
			} else {
				// What the members said is kept for whoever has to find out why.
				err = fmt.Errorf("demo: %w (logs in %s)", err, d.dir)
			}
		} else if err = os.RemoveAll(d.dir); err == nil {
			d.view.say("\nall members stopped")
		}
		if c.JSON {
			d.report.OK = err == nil
			text, jsonErr := json.Marshal(d.report)
			err = errors.Join(err, jsonErr)
			fmt.Fprintf(env.stdout, "%s\n", text)
		}
	}()

	if err := d.startMembers(ctx); err != nil {
		return err
	}
	for i, step := range demoSteps {
		d.view.say("\n%d. %s", i+1, step.title)
		if err := step.run(d, ctx); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
	}
	return nil
}

// steadyRound sends three times the limit, from all members at once.
func (d *demo) steadyRound(ctx context.Context) error {
	round := newDemoLoad(d.members, "steady", "demo:steady")
	d.view.say("   %d requests for one key from all %d at once, a fixed window of %d",
		round.total, len(d.members), round.limit)
	result := d.view.follow(round, func() demoRound { return round.run(ctx, nil) })
	d.report.Rounds = append(d.report.Rounds, result)
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	d.view.say("allowed %d of %d (limit %d)", result.Allowed, result.Sent, result.Limit)
	switch {
	case round.failure() != nil:
		return round.failure()
	case result.Allowed != result.Limit:
		return fmt.Errorf("allowed %d, want exactly %d", result.Allowed, result.Limit)
	}
	return nil
}

// killRound sends the same for another key and, when half of the limit is used,
// kills the member that holds the key, with SIGKILL. Every answer waits for the
// key's backup, so that even then not one more than the limit is allowed; a
// permit may be lost with each request that was under way at that moment.
func (d *demo) killRound(ctx context.Context) error {
	round := newDemoLoad(d.members, "kill", "demo:kill")
	round.synchronous = true
	round.spread = 2 * time.Second // so that there is something to see
	d.view.say("   another key; SIGKILL for the member that holds it when %d are allowed", round.limit/2)
	before, err := d.heldKeys(ctx)
	if err != nil {
		return err
	}
	var dead *demoMember
	underWay := 0
	strike := func() (err error) {
		if dead, err = d.victim(ctx, before); err != nil {
			return err
		}
		answered := round.answered()
		if err := dead.kill(); err != nil {
			return err
		}
		underWay = round.sent() - answered // those of before and during the kill
		return nil
	}
	result := d.view.follow(round, func() demoRound { return round.run(ctx, strike) })
	d.report.Rounds = append(d.report.Rounds, result)
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if dead != nil {
		d.view.say("   killed %s (pid %d), which held the key; %d requests were under way, %d sent to it got no answer",
			dead.name, dead.pid(), underWay, round.errorsOf(dead))
	}
	d.view.say("allowed %d of %d (limit %d)", result.Allowed, result.Sent, result.Limit)
	switch {
	case round.failure() != nil:
		return round.failure()
	case dead == nil:
		return fmt.Errorf("only %d were allowed, so nobody was killed", result.Allowed)
	case result.Allowed > result.Limit:
		return fmt.Errorf("allowed %d, want at most %d", result.Allowed, result.Limit)
	case result.Allowed < result.Limit-underWay:
		return fmt.Errorf("allowed %d, want at least %d: the limit less what was under way",
			result.Allowed, result.Limit-underWay)
	}
	return nil
}
