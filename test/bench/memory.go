package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/httprate"
	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/ratelimit"
	"github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-limiter/memorystore"
)

// memory is what a number of keys take at their holder, without copies.
type memory struct {
	Contender string  `json:"contender"`
	Keys      int     `json:"keys"`
	KeyBytes  int     `json:"key_bytes"`
	PerEntry  float64 `json:"bytes_per_entry"` // key included
	BeyondKey float64 `json:"bytes_beyond_key"`
	Resident  int64   `json:"resident_bytes"` // of the whole process
}

// longKey has 38 bytes, as "user:" and a UUID without braces nearly have.
func longKey(i int) string { return fmt.Sprintf("user:%033d", i) }

var longKeyBytes = len(longKey(0))

// filling is an order to fill a process with keys.
type filling struct {
	Contender string
	Keys      int
}

// memory fills each contender, in a process of its own, with keys that live for
// a day.
func (r *runner) memory(ctx context.Context, rep *report) error {
	sizes := []int{1_000_000}
	if r.memoryFull {
		sizes = append(sizes, 10_000_000)
	}
	if r.quick {
		sizes = []int{100_000}
	}
	var failed []error
	for _, keys := range sizes {
		for _, name := range []string{"peerlimit", "redis-goredis", "go-limiter", "httprate"} {
			if !r.wantsContender(name) {
				continue
			}
			fill := fillChild
			if name == "redis-goredis" {
				fill = fillRedis
			}
			m, err := fill(ctx, filling{name, keys})
			if err != nil {
				failed = append(failed, fmt.Errorf("%s with %d keys: %w", name, keys, err))
				continue
			}
			rep.Memory = append(rep.Memory, m)
			fmt.Fprintf(r.progress, "%s with %d keys: done\n", name, keys)
		}
	}
	return errors.Join(failed...)
}

func newMemory(f filling, bytes, resident int64) memory {
	each := float64(bytes) / float64(f.Keys)
	return memory{f.Contender, f.Keys, longKeyBytes, rounded(each), rounded(each - float64(longKeyBytes)), resident}
}

func fillChild(ctx context.Context, f filling) (m memory, err error) {
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	c, err := startChild(exec.Command(self, fillCommand))
	if err != nil {
		return m, err
	}
	defer c.kill()
	_, err = c.call(ctx, f, &m)
	return m, err
}

func runFill(in io.Reader, out io.Writer) error {
	return serveLines(bufio.NewScanner(in), out, func(line []byte) (any, error) {
		var f filling
		if err := json.Unmarshal(line, &f); err != nil {
			return nil, err
		}
		one, closing, err := filler(context.Background(), f)
		if err != nil {
			return nil, err
		}
		before := heap()
		for i := range f.Keys {
			if allowed, err := one(context.Background(), longKey(i)); err != nil || !allowed {
				return nil, errors.Join(err, closing(), fmt.Errorf("key %d: allowed %v", i, allowed))
			}
		}
		used := heap() - before
		runtime.KeepAlive(one)
		m := newMemory(f, used, residentBytes(os.Getpid()))
		return m, closing()
	})
}

// heap is how many bytes are reachable.
func heap() int64 {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// filler returns a decision that makes an entry. Those of peerlimit are made by
// the only member of a cluster.
func filler(ctx context.Context, f filling) (ask, func() error, error) {
	switch f.Contender {
	case "peerlimit":
		node, err := cluster.Start(ctx, cluster.Config{
			ClusterName: "bench-fill-" + strconv.Itoa(os.Getpid()), NodeID: "fill",
			Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0", KVBind: "127.0.0.1:0", DrainTimeout: time.Millisecond,
		})
		if err != nil {
			return nil, nil, err
		}
		limits, err := ratelimit.New(ratelimit.Config{Cluster: node, MaxKeys: 2 * f.Keys})
		if err != nil {
			return nil, nil, errors.Join(err, node.Close())
		}
		m := &member{node: node, limits: limits, hasty: true}
		if err := errors.Join(node.AwaitReady(ctx), m.awaitKV(ctx)); err != nil { // what it takes itself is no key's
			return nil, nil, errors.Join(err, m.close())
		}
		return m.asker(once), m.close, nil
	case "go-limiter":
		store, err := memorystore.New(&memorystore.Config{Tokens: uint64(once.Limit), Interval: once.Period})
		if err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context, key string) (bool, error) {
			_, _, _, ok, err := store.Take(ctx, key)
			return ok, err
		}, func() error { return store.Close(ctx) }, nil
	case "httprate":
		counter := httprate.NewLocalLimitCounter(once.Period)
		window := time.Now().UTC().Truncate(once.Period)
		return func(_ context.Context, key string) (bool, error) {
			return true, counter.IncrementBy(key, window, 1)
		}, func() error { return nil }, nil
	}
	return nil, nil, fmt.Errorf("there is no contender %q", f.Contender)
}

// fillRedis fills a server and asks it what that took.
func fillRedis(ctx context.Context, f filling) (m memory, err error) {
	var server redisServer
	if reason := server.missing(); reason != "" {
		return m, errors.New(reason)
	}
	if err := server.start(ctx); err != nil {
		return m, err
	}
	defer server.stop()
	client := redis.NewClient(&redis.Options{Addr: server.address, ReadTimeout: time.Minute})
	defer client.Close()
	before, err := usedMemory(ctx, client)
	if err != nil {
		return m, err
	}
	const batch = 1000
	for first := 0; first < f.Keys; first += batch {
		_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := first; i < min(first+batch, f.Keys); i++ {
				p.Incr(ctx, longKey(i))
				p.ExpireNX(ctx, longKey(i), once.Period)
			}
			return nil
		})
		if err != nil {
			return m, err
		}
	}
	after, err := usedMemory(ctx, client)
	if err != nil {
		return m, err
	}
	return newMemory(f, after-before, residentBytes(server.command.Process.Pid)), nil
}

// usedMemory is what Redis has allocated, by INFO memory.
func usedMemory(ctx context.Context, client *redis.Client) (int64, error) {
	info, err := client.Info(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	lines := strings.Split(info, "\r\n")
	i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "used_memory:") })
	if i < 0 {
		return 0, errors.New("INFO memory has no used_memory")
	}
	return strconv.ParseInt(strings.TrimPrefix(lines[i], "used_memory:"), 10, 64)
}
