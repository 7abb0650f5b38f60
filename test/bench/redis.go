package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisServer is a server of its own, without persistence, on a free port.
type redisServer struct {
	command *exec.Cmd
	address string
}

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

func (r *redisServer) processes() []int { return []int{r.command.Process.Pid} }

// start waits until the server answers.
func (r *redisServer) start(ctx context.Context) error {
	port, err := freePort("127.0.0.1")
	if err != nil {
		return err
	}
	command := exec.Command(redisPath(), "--port", port, "--bind", "127.0.0.1",
		"--save", "", "--appendonly", "no", "--loglevel", "warning", "--daemonize", "no")
	command.Dir = os.TempDir()
	if err := command.Start(); err != nil {
		return err
	}
	r.command, r.address = command, net.JoinHostPort("127.0.0.1", port)
	client := redis.NewClient(&redis.Options{Addr: r.address})
	defer client.Close()
	for {
		err := client.Ping(ctx).Err()
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

func (r *redisServer) stop() {
	if r.command != nil {
		_ = r.command.Process.Kill()
		_ = r.command.Wait() // it was killed: that is its error
		r.command = nil
	}
}

func freePort(host string) (string, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, errors.Join(err, listener.Close())
}
