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
	"strings"
	"sync"
)

// This program starts itself again as one of these instead of a measurement.
const (
	memberCommand     = "member"
	gubernatorCommand = "gubernator"
	fillCommand       = "fill"
)

// runAs runs one of the commands above; ok is false where args name none.
func runAs(ctx context.Context, args []string) (ok bool, err error) {
	if len(args) == 0 {
		return false, nil
	}
	switch args[0] {
	case memberCommand:
		return true, runMember(ctx, os.Stdin, os.Stdout)
	case gubernatorCommand:
		return true, runGubernator(ctx, os.Stdin, os.Stdout)
	case fillCommand:
		return true, runFill(os.Stdin, os.Stdout)
	}
	return false, nil
}

// child is a process that speaks lines: a first one when it is ready, and then
// an answer to each that is sent. It should end when its stdin does.
type child struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	lines   *bufio.Scanner
	mu      sync.Mutex // held from a question to its answer
}

// startSelf starts this program again as a command, and tells it its settings
// in a line of JSON.
func startSelf(ctx context.Context, command string, settings any) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c, err := startChild(exec.Command(self, command))
	if err != nil {
		return nil, err
	}
	if _, err := c.call(ctx, settings, nil); err != nil {
		c.kill()
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	return c, nil
}

func startChild(command *exec.Cmd) (*child, error) {
	c := &child{command: command}
	command.Stderr = os.Stderr
	var err error
	if c.stdin, err = command.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.lines = bufio.NewScanner(stdout)
	if err := command.Start(); err != nil {
		return nil, err
	}
	return c, nil
}

// call sends a line of JSON and waits for a line in return, which it reads into
// answer unless that is nil. When ctx ends, the process does.
func (c *child) call(ctx context.Context, question, answer any) (string, error) {
	line, err := json.Marshal(question)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer context.AfterFunc(ctx, func() { _ = c.command.Process.Kill() })()
	if _, err := c.stdin.Write(append(line, '\n')); err != nil {
		return "", err
	}
	text, err := c.line()
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil || answer == nil {
		return text, err
	}
	return text, json.Unmarshal([]byte(text), answer)
}

func (c *child) line() (string, error) {
	if !c.lines.Scan() {
		return "", errors.Join(errors.New("the process ended"), c.lines.Err())
	}
	text := c.lines.Text()
	if failure, ok := strings.CutPrefix(text, "error: "); ok {
		return "", errors.New(failure)
	}
	return text, nil
}

func (c *child) pid() int { return c.command.Process.Pid }

func (c *child) kill() {
	_ = c.command.Process.Kill()
	_ = c.stdin.Close()
	_ = c.command.Wait() // it was killed: that is its error
}

func pids(children []*child) []int {
	all := make([]int, len(children))
	for i, c := range children {
		all[i] = c.pid()
	}
	return all
}

func killAll(children []*child) {
	for _, c := range children {
		c.kill()
	}
}

// serveLines answers lines of JSON, the other side of a child's call, until
// they end.
func serveLines(lines *bufio.Scanner, out io.Writer, answer func(line []byte) (any, error)) error {
	for lines.Scan() {
		reply, err := answer(lines.Bytes())
		text, encodeErr := json.Marshal(reply)
		if err = errors.Join(err, encodeErr); err != nil {
			text = []byte("error: " + strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		if _, err := fmt.Fprintf(out, "%s\n", text); err != nil {
			return err
		}
	}
	return lines.Err()
}
