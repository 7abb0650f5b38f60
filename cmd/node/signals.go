package main

import (
	"context"
	"os/signal"
	"syscall"
)

// untilSignal returns a context that the first SIGTERM or SIGINT ends, so that
// a command can drain and clean up. From then on the two do what they do by
// default: a second one stops the process at once.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, syscall.SIGTERM, syscall.SIGINT)
	forget := context.AfterFunc(ctx, stop)
	return ctx, func() { forget(); stop() }
}
