package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisServer counts as most services do that have a Redis: INCR, and EXPIRE
// where the key is new, in one round trip.
type redisServer struct {
	title  string
	server *exec.Cmd
	client *redis.Client
}

func (r *redisServer) name() string { return r.title }

func redisPath() string {
	if path := os.Getenv("PEERLIMIT_TEST_REDIS_SERVER"); path != "" {
		return path
	}
	path, _ := exec.LookPath("redis-server")
	return path
}

func (r *redisServer) missing() string {
	if redisPath() == "" {
		return "there is no redis-server (Debian: redis-server)"
	}
	return ""
}

func (r *redisServer) start(ctx context.Context, callers int) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	r.server = exec.Command(redisPath(), "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	if err := r.server.Start(); err != nil {
		return err
	}
	r.client = redis.NewClient(&redis.Options{Addr: net.JoinHostPort("127.0.0.1", port), PoolSize: callers})
	for {
		err := r.client.Ping(ctx).Err()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, errors.Join(err, listener.Close())
}

func (r *redisServer) keys(_ context.Context, n int) ([]string, error) { return allKeys(n), nil }

func (r *redisServer) decide(ctx context.Context, key string) error {
	var count *redis.IntCmd
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		count = p.Incr(ctx, key)
		p.ExpireNX(ctx, key, time.Minute)
		return nil
	})
	if err == nil && count.Val() > limit {
		err = fmt.Errorf("denied")
	}
	return err
}

func (r *redisServer) close() error {
	var err error
	if r.client != nil {
		err = r.client.Close()
	}
	if r.server != nil && r.server.Process != nil {
		_ = r.server.Process.Kill()
		_ = r.server.Wait() // it was killed: that is its error
	}
	return err
}
