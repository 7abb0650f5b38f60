package main

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// rueidisClient does the same as goredis; this client packs the commands of all
// callers into few writes by itself. Its cache is off: a counter can't use it.
type rueidisClient struct {
	redisServer
	client rueidis.Client
}

func (r *rueidisClient) name() string { return "redis-rueidis" }

func (r *rueidisClient) start(ctx context.Context, _ int) (err error) {
	if err := r.redisServer.start(ctx); err != nil {
		return err
	}
	r.client, err = rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{r.address}, DisableCache: true})
	return err
}

func (r *rueidisClient) prepare(ctx context.Context, p path) (*job, error) {
	switch {
	case p.decides() && p.where != here:
		one := r.counter(p.rule)
		return &job{ask: one, keys: p.names(p.keys), spend: spender(one)}, nil
	case p.name == "auth":
		key := "secret-of-a-client"
		return &job{keys: []string{key}, ask: func(ctx context.Context, key string) (bool, error) {
			return r.get(ctx, entryKey(key))
		}}, r.set(ctx, entryKey(key), string(value()))
	case p.name == "cache":
		keys := valueKeys(valueCount)
		for _, key := range keys {
			if err := r.set(ctx, key, string(value())); err != nil {
				return nil, err
			}
		}
		return &job{ask: r.get, keys: keys}, nil
	case p.name == "cache-set":
		v := string(value())
		return &job{keys: valueKeys(valueCount), ask: func(ctx context.Context, key string) (bool, error) {
			err := r.set(ctx, key, v)
			return err == nil, err
		}}, nil
	}
	return nil, nil
}

func (r *rueidisClient) counter(rule rule) ask {
	prefix, seconds := rule.Name+":", int64(rule.Period/time.Second)
	return func(ctx context.Context, key string) (bool, error) {
		key = prefix + key
		answers := r.client.DoMulti(ctx,
			r.client.B().Incr().Key(key).Build(),
			r.client.B().Expire().Key(key).Seconds(seconds).Nx().Build())
		if err := answers[1].Error(); err != nil {
			return false, err
		}
		count, err := answers[0].AsInt64()
		return err == nil && count <= rule.Limit, err
	}
}

func (r *rueidisClient) get(ctx context.Context, key string) (bool, error) {
	b, err := r.client.Do(ctx, r.client.B().Get().Key(key).Build()).AsBytes()
	if err == nil && len(b) != valueBytes {
		err = errMiss
	}
	return err == nil, err
}

func (r *rueidisClient) set(ctx context.Context, key, value string) error {
	return r.client.Do(ctx, r.client.B().Set().Key(key).Value(value).Px(valueTTL).Build()).Error()
}

func (r *rueidisClient) close() error {
	if r.client != nil {
		r.client.Close()
		r.client = nil
	}
	r.stop()
	return nil
}
