package main

import "context"

// victim chooses whom to kill in a round, and says why: the last member that
// was started, whatever it holds.
func (d *demo) victim(context.Context, *demoLoad) (*demoMember, string, error) {
	return d.members[len(d.members)-1], "the last that was started", nil
}
