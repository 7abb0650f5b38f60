// Command bench measures decisions of peerlimit, and of others beside it, in
// one run on one machine, so that the figures can be compared with each other.
// Absolute figures depend on the machine and on what else it does.
//
// It is a module of its own: what it compares with must not become a dependency
// of what it measures.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1] == memberCommand {
		err = runMember(ctx, os.Args[2:])
	} else {
		err = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options of a run.
type options struct {
	json     bool
	only     string
	callers  []int
	keys     int
	duration time.Duration
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	callers := flags.String("callers", "1,16,64,256", "numbers of concurrent callers, each from 1 to 10000")
	flags.BoolVar(&o.json, "json", false, "print one JSON object instead of tables")
	flags.StringVar(&o.only, "only", "", "run only contenders whose name contains this")
	flags.IntVar(&o.keys, "keys", 10_000, "number of keys, from 1 to 1000000")
	flags.DurationVar(&o.duration, "duration", 2*time.Second, "length of each measurement, from 10ms to 5m")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	for field := range strings.SplitSeq(*callers, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || n < 1 || n > 10_000 {
			return o, fmt.Errorf("-callers: %q is not a number from 1 to 10000", field)
		}
		o.callers = append(o.callers, n)
	}
	if o.keys < 1 || o.keys > 1_000_000 {
		return o, fmt.Errorf("-keys: must be from 1 to 1000000, is %d", o.keys)
	}
	if o.duration < 10*time.Millisecond || o.duration > 5*time.Minute {
		return o, fmt.Errorf("-duration: must be from 10ms to 5m, is %s", o.duration)
	}
	return o, nil
}

// report is all that a run measured.
type report struct {
	InProcess []inProcess   `json:"in_process"`
	Calls     []measurement `json:"calls"`
	Skipped   []string      `json:"skipped,omitempty"`
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	var r report
	if strings.Contains("peerlimit", o.only) {
		if r.InProcess, err = measureInProcess(ctx); err != nil {
			return err
		}
	}
	for _, c := range contenders() {
		if !strings.Contains(c.name(), o.only) {
			continue
		}
		if reason := c.missing(); reason != "" {
			r.Skipped = append(r.Skipped, c.name()+": "+reason)
			continue
		}
		measured, err := measureContender(ctx, c, o)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name(), err)
		}
		r.Calls = append(r.Calls, measured...)
	}
	if o.json {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	return r.write(stdout)
}

func (r *report) write(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(r.InProcess) > 0 {
		fmt.Fprintln(table, "in process\tns\tallocs\tbytes\t")
		for _, m := range r.InProcess {
			fmt.Fprintf(table, "%s\t%.0f\t%d\t%d\t\n", m.Name, m.Nanoseconds, m.Allocs, m.Bytes)
		}
		fmt.Fprintln(table, "\t\t\t\t")
	}
	fmt.Fprintln(table, "decisions\tcallers\tper second\tp50\tp99\tslowest\terrors\t")
	for _, m := range r.Calls {
		fmt.Fprintf(table, "%s\t%d\t%.0f\t%s\t%s\t%s\t%d\t\n", m.Name, m.Callers, m.PerSecond,
			short(m.P50), short(m.P99), short(m.Slowest), m.Errors)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, s := range r.Skipped {
		fmt.Fprintln(w, "skipped", s)
	}
	return nil
}

func short(ns int64) time.Duration {
	d := time.Duration(ns)
	if d > 10*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(100 * time.Nanosecond)
}
