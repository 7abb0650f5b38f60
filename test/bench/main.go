// Command bench measures decisions of peerlimit, and of others beside it, in
// one run on one machine, so that the figures can be compared with each other.
// Absolute figures depend on the machine and on what else it does.
//
// It starts all that it measures: members, nodes, daemons and servers, on
// loopback, and this process puts the load on them. README.md says how.
//
// It is a module of its own: what it compares with must not become a dependency
// of what it measures.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	redis.SetLogger(silence{}) // what fails while things are stopped is of no interest
	again, err := runAs(ctx, os.Args[1:])
	if !again {
		err = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures and writes what it measured, also where a part of it failed.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	rep := &report{Machine: thisMachine(), Options: strings.Join(args, " ")}
	r := &runner{options: o, progress: stderr}
	switch {
	case o.memory:
		err = r.memory(ctx, rep)
	case o.flood:
		err = r.flood(ctx, rep)
	case o.scale:
		err = r.scale(ctx, rep)
	default:
		err = r.rounds(ctx, rep)
	}
	rep.finish(contenderNames(o), pathNames(o))
	return errors.Join(err, output(rep, o, stdout))
}

func contenderNames(o options) (names []string) {
	for _, c := range contenders(o) {
		names = append(names, c.name())
	}
	return names
}

func pathNames(o options) (names []string) {
	for _, p := range paths(o, 0) {
		names = append(names, p.name)
	}
	return append(names, middlewarePath)
}

func output(rep *report, o options, stdout io.Writer) error {
	if o.svg != "" {
		if err := toFile(o.svg, rep.writePlot); err != nil {
			return err
		}
	}
	if o.json.wanted && o.json.file == "" {
		return rep.writeJSON(stdout)
	}
	if o.json.wanted {
		if err := toFile(o.json.file, rep.writeJSON); err != nil {
			return err
		}
	}
	return rep.writeTables(stdout)
}

// silence is a logger of go-redis, which else writes to stderr.
type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

func toFile(name string, write func(io.Writer) error) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}
