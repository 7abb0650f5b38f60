package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
)

// memberCommand makes this program one more member instead of a measurement.
const memberCommand = "member"

// runMember is a member until its stdin, a pipe from the measuring process, ends.
func runMember(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(memberCommand, flag.ContinueOnError)
	name := flags.String("cluster", "", "name of the cluster")
	id := flags.String("id", "", "node ID")
	join := flags.String("join", "", "a member's gossip address")
	if err := flags.Parse(args); err != nil {
		return err
	}
	node, limits, err := startNode(ctx, *name, *id, []string{*join})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	err = limits.Close()
	_ = node.Close() // nobody needs what it counted
	return err
}

// child is a process that ends when its stdin does.
type child struct {
	command *exec.Cmd
	stdin   io.Closer
}

func startChild(ctx context.Context, name, id, join string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{command: exec.Command(self, memberCommand, "-cluster", name, "-id", id, "-join", join)}
	c.command.Stderr = os.Stderr
	if c.stdin, err = c.command.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.command.Start(); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = c.command.Process.Kill() })()
	if !bufio.NewScanner(stdout).Scan() {
		c.kill()
		return nil, fmt.Errorf("%s: ended before it was ready", id)
	}
	return c, nil
}

func (c *child) kill() {
	_ = c.command.Process.Kill()
	_ = c.command.Wait() // it was killed: that is its error
	_ = c.stdin.Close()
}

func clusterName() string { return "bench-" + strconv.Itoa(os.Getpid()) }
