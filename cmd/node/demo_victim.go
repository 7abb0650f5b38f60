package main

import "context"

// victim chooses whom to kill in a round, and says why.
func (d *demo) victim(ctx context.Context, round *demoLoad) (*demoMember, string, error) {
	return d.members[len(d.members)-1], "", nil
}
