package main

import (
	"context"
	"fmt"
)

// contender is a system that is asked whether a call may go ahead: limit a
// minute, one key a call. Its methods are called in the order in which they
// stand here; decide by many goroutines at once.
type contender interface {
	name() string
	// missing says why it can't be measured here; "" where it can.
	missing() string
	// start starts what it needs, for that many callers.
	start(ctx context.Context, callers int) error
	// keys returns which of a number of keys to ask for.
	keys(ctx context.Context, n int) ([]string, error)
	decide(ctx context.Context, key string) error
	close() error
}

// limit of every contender: high enough that all decisions are allowed, since a
// denial may be cheaper.
const limit = 1_000_000_000

func contenders() []contender {
	return []contender{
		&peerlimit{title: "peerlimit, 3 processes"},
		&peerlimit{title: "peerlimit, held by another", remoteOnly: true},
		&redisServer{title: "redis INCR+EXPIRE, go-redis"},
	}
}

func keyName(i int) string { return fmt.Sprintf("account:%06d", i) }

func allKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = keyName(i)
	}
	return keys
}
