package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// heldKeys is how many keys each member holds, in the members' order.
func (d *demo) heldKeys(ctx context.Context) ([]int, error) {
	held := make([]int, len(d.members))
	for i, m := range d.members {
		answer, _, err := m.client.do(ctx, http.MethodGet, "/v1/ratelimit", nil, http.StatusOK)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		var keys keysView
		if err := json.Unmarshal(answer, &keys); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		held[i] = keys.Here
	}
	return held, nil
}

// victim is the member that holds a key which is new since before.
func (d *demo) victim(ctx context.Context, before []int) (*demoMember, error) {
	held, err := d.heldKeys(ctx)
	if err != nil {
		return nil, err
	}
	for i, m := range d.members {
		if held[i] > before[i] {
			return m, nil
		}
	}
	return nil, errors.New("no member says that it holds the key")
}
