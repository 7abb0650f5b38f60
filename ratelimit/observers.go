package ratelimit

import "context"

// Observers are several observers in the place of one: each is told, in order.
type Observers []Observer

// Decided tells each of them.
func (s Observers) Decided(ctx context.Context, o Observation) {
	for _, observer := range s {
		observer.Decided(ctx, o)
	}
}
