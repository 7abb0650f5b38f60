package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/redis/go-redis/v9"
)

// goredis counts as most services do that have a Redis: INCR, and EXPIRE where
// the key is new, in one round trip.
type goredis struct {
	redisServer
	client *redis.Client
}

func (g *goredis) name() string { return "redis-goredis" }

func (g *goredis) start(ctx context.Context, callers int) error {
	if err := g.redisServer.start(ctx); err != nil {
		return err
	}
	g.client = redis.NewClient(&redis.Options{Addr: g.address, PoolSize: callers})
	return nil
}

func (g *goredis) prepare(ctx context.Context, p path) (*job, error) {
	switch {
	case p.decides() && p.where != here:
		one := g.counter(p.rule)
		return &job{ask: one, keys: p.names(p.keys), spend: spender(one)}, nil
	case p.name == "auth":
		key := "secret-of-a-client"
		return &job{ask: g.entry, keys: []string{key}}, g.client.Set(ctx, entryKey(key), value(), valueTTL).Err()
	case p.name == "cache":
		keys := valueKeys(valueCount)
		for _, key := range keys {
			if err := g.client.Set(ctx, key, value(), valueTTL).Err(); err != nil {
				return nil, err
			}
		}
		return &job{ask: g.get, keys: keys}, nil
	case p.name == "cache-set":
		v := value()
		return &job{keys: valueKeys(valueCount), ask: func(ctx context.Context, key string) (bool, error) {
			err := g.client.Set(ctx, key, v, valueTTL).Err()
			return err == nil, err
		}}, nil
	}
	return nil, nil
}

func (g *goredis) counter(r rule) ask {
	prefix := r.Name + ":"
	return func(ctx context.Context, key string) (bool, error) {
		var count *redis.IntCmd
		_, err := g.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			count = p.Incr(ctx, prefix+key)
			p.ExpireNX(ctx, prefix+key, r.Period)
			return nil
		})
		return err == nil && count.Val() <= r.Limit, err
	}
}

func (g *goredis) get(ctx context.Context, key string) (bool, error) {
	b, err := g.client.Get(ctx, key).Bytes()
	if err == nil && len(b) != valueBytes {
		err = errMiss
	}
	return err == nil, err
}

// entry reads what a client's key stands for. Keys are stored by their hash.
func (g *goredis) entry(ctx context.Context, key string) (bool, error) {
	return g.get(ctx, entryKey(key))
}

func entryKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "auth:" + hex.EncodeToString(sum[:])
}

func (g *goredis) close() (err error) {
	if g.client != nil {
		err = g.client.Close()
		g.client = nil
	}
	g.stop()
	if errors.Is(err, redis.ErrClosed) {
		return nil
	}
	return err
}
