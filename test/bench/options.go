package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// options of a run.
type options struct {
	quick    bool
	json     outputFile
	svg      string
	only     []string // contenders
	paths    []string
	callers  []int
	members  []int // of -scale
	keys     int
	zipfKeys int
	rounds   int
	duration time.Duration
	tls      bool
	node     string

	memory, memoryFull, flood, scale bool
}

// outputFile is a flag that may be given without a value, for standard output.
type outputFile struct {
	wanted bool
	file   string // empty: standard output
}

func (f *outputFile) String() string   { return f.file }
func (f *outputFile) IsBoolFlag() bool { return true }
func (f *outputFile) Set(s string) error {
	f.wanted, f.file = s != "false", s
	if s == "true" || s == "false" || s == "-" {
		f.file = ""
	}
	return nil
}

// The length of one measurement, unless given.
const (
	quickDuration = 160 * time.Millisecond
	fullDuration  = time.Second
	fullRounds    = 3
)

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.quick, "quick", false, "one short round with 64 callers, in 45 s")
	flags.Var(&o.json, "json", "print JSON instead of tables; -json=`FILE` writes it there, beside the tables")
	flags.StringVar(&o.svg, "svg", "", "write a plot to this `file`")
	only := flags.String("only", "", "run only these contenders, separated by commas")
	wanted := flags.String("paths", "", "run only these paths, separated by commas")
	callers := flags.String("callers", "", "numbers of concurrent callers, each from 1 to 10000 (default 1,16,64,256; quick: 64)")
	flags.IntVar(&o.keys, "keys", 10_000, "number of keys of most paths, from 1 to 1000000")
	flags.IntVar(&o.zipfKeys, "zipf-keys", 1_000_000, "number of keys of the Zipf path, from 1 to 10000000")
	flags.IntVar(&o.rounds, "rounds", 0, "rounds over all contenders, from 1 to 100 (default 3; quick: 1)")
	flags.DurationVar(&o.duration, "duration", 0, "length of each measurement, from 10ms to 5m (default 1s; quick: 160ms)")
	flags.BoolVar(&o.tls, "tls", false, "peerlimit's members have a secret and talk over TLS 1.3")
	flags.StringVar(&o.node, "node", "", "a built cmd/node, which is built from source unless given")
	flags.BoolVar(&o.memory, "memory", false, "measure bytes a key instead, with 1,000,000 keys")
	flags.BoolVar(&o.memoryFull, "memory-full", false, "the same with 10,000,000 keys too")
	flags.BoolVar(&o.flood, "flood", false, "measure made-up keys, each used once, instead")
	flags.BoolVar(&o.scale, "scale", false, "measure clusters of several sizes instead")
	members := flags.String("members", "", "those sizes, each from 2 to 99 (default 3,10,30; quick: 3,10)")
	if err := flags.Parse(joinJSON(args)); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q: no arguments are taken, only flags", flags.Arg(0))
	}
	if o.callers, err = numbers(*callers, 1, 10_000); err != nil {
		return o, fmt.Errorf("-callers: %w", err)
	}
	if o.members, err = numbers(*members, 2, 99); err != nil {
		return o, fmt.Errorf("-members: %w", err)
	}
	o.only, o.paths = list(*only), list(*wanted)
	o.setDefaults()
	return o, o.validate()
}

// joinJSON makes "-json FILE" one argument.
func joinJSON(args []string) []string {
	args = slices.Clone(args)
	for i := 0; i+1 < len(args); i++ {
		if (args[i] == "-json" || args[i] == "--json") && !strings.HasPrefix(args[i+1], "-") {
			args[i] += "=" + args[i+1]
			args = slices.Delete(args, i+1, i+2)
		}
	}
	return args
}

func (o *options) setDefaults() {
	quick := func(q, full int) int {
		if o.quick {
			return q
		}
		return full
	}
	if o.rounds == 0 {
		o.rounds = quick(1, fullRounds)
	}
	if o.duration == 0 {
		o.duration = time.Duration(quick(int(quickDuration), int(fullDuration)))
	}
	if o.callers == nil {
		if o.callers = []int{1, 16, 64, 256}; o.quick {
			o.callers = []int{64}
		}
	}
	if o.members == nil {
		if o.members = []int{3, 10, 30}; o.quick {
			o.members = []int{3, 10}
		}
	}
	o.memory = o.memory || o.memoryFull
}

func (o *options) validate() error {
	for _, f := range []struct {
		name           string
		value, highest int
	}{{"keys", o.keys, 1_000_000}, {"zipf-keys", o.zipfKeys, 10_000_000}, {"rounds", o.rounds, 100}} {
		if f.value < 1 || f.value > f.highest {
			return fmt.Errorf("-%s: must be from 1 to %d, is %d", f.name, f.highest, f.value)
		}
	}
	if o.duration < 10*time.Millisecond || o.duration > 5*time.Minute {
		return fmt.Errorf("-duration: must be from 10ms to 5m, is %s", o.duration)
	}
	modes := 0
	for _, mode := range []bool{o.memory, o.flood, o.scale} {
		if mode {
			modes++
		}
	}
	if modes > 1 {
		return errors.New("-memory, -flood, -scale: only one of them at a time")
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(contenders(*o), func(c contender) bool { return c.name() == name }) {
			return fmt.Errorf("-only: there is no contender %q", name)
		}
	}
	for _, name := range o.paths {
		if !slices.Contains(pathNames(*o), name) {
			return fmt.Errorf("-paths: there is no path %q; there are %s", name, strings.Join(pathNames(*o), ", "))
		}
	}
	return nil
}

// remoteCallers are those of the path on which the time of one call matters.
func (o *options) remoteCallers() []int {
	if o.quick {
		return []int{1}
	}
	return nil
}

// remoteKeys are fewer where finding them would take longer than asking.
func (o *options) remoteKeys() int {
	if o.quick {
		return min(o.keys, 2000)
	}
	return o.keys
}

func (o *options) wantsPath(name string) bool {
	return o.paths == nil || slices.Contains(o.paths, name)
}

func (o *options) wantsContender(name string) bool {
	return o.only == nil || slices.Contains(o.only, name)
}

func list(s string) (all []string) {
	for field := range strings.SplitSeq(s, ",") {
		if field = strings.TrimSpace(field); field != "" {
			all = append(all, field)
		}
	}
	return all
}

func numbers(s string, lowest, highest int) (all []int, err error) {
	for _, field := range list(s) {
		n, err := strconv.Atoi(field)
		if err != nil || n < lowest || n > highest {
			return nil, fmt.Errorf("%q is not a number from %d to %d", field, lowest, highest)
		}
		all = append(all, n)
	}
	return all, nil
}
