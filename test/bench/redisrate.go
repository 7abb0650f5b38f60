package main

import (
	"context"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
)

// redisRate is a Lua script in Redis, which computes GCRA.
type redisRate struct {
	redisServer
	client *redis.Client
}

func (r *redisRate) name() string { return "redis_rate" }

func (r *redisRate) start(ctx context.Context, callers int) error {
	if err := r.redisServer.start(ctx); err != nil {
		return err
	}
	r.client = redis.NewClient(&redis.Options{Addr: r.address, PoolSize: callers})
	return nil
}

func (r *redisRate) prepare(_ context.Context, p path) (*job, error) {
	if !p.decides() || p.where == here {
		return nil, nil
	}
	limits := redis_rate.NewLimiter(r.client)
	limit := redis_rate.Limit{Rate: int(p.rule.Limit), Burst: int(p.rule.Limit), Period: p.rule.Period}
	prefix := p.rule.Name + ":"
	one := func(ctx context.Context, key string) (bool, error) {
		answer, err := limits.Allow(ctx, prefix+key, limit)
		return err == nil && answer.Allowed > 0, err
	}
	return &job{ask: one, keys: p.names(p.keys), spend: spender(one), refills: true}, nil
}

func (r *redisRate) close() (err error) {
	if r.client != nil {
		err = r.client.Close()
		r.client = nil
	}
	r.stop()
	return err
}
