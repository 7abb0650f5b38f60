package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// Exit codes of every command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitDenied = 3 // check: the limit said no
)

// environment is what a command may touch of the world outside.
type environment struct {
	stdout, stderr io.Writer
	settings       []setting // the command's flags
}

// usageError is bad usage: the message names the flag and what it may be.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// errDenied makes check end with its own exit code; what there is to say has
// been said on stdout.
var errDenied = errors.New("denied")

// run is the whole program but for what only a process has: it parses args,
// carries the command out until it is done or ctx ends, and returns the exit
// code. Errors are one line on stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var line commandLine
	parser, err := newParser(&line, stdout, stderr)
	if err != nil { // the grammar itself is wrong
		fmt.Fprintln(stderr, "node:", oneLine(err))
		return exitFailed
	}
	command, err := parser.Parse(args)
	if err != nil {
		if errors.Is(err, errHelpShown) {
			return exitDone
		}
		message := oneLine(err)
		if failed, ok := errors.AsType[*kong.ParseError](err); ok && failed.Context != nil {
			message = withSource(message, settingsOf(failed.Context, line.File))
		}
		fmt.Fprintln(stderr, "node:", message)
		return exitUsage
	}
	command.BindTo(ctx, (*context.Context)(nil))
	settings := settingsOf(command, line.File)
	err = command.Run(&environment{stdout: stdout, stderr: stderr, settings: settings})

	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errDenied):
		return exitDenied
	case errors.As(err, &usage):
		fmt.Fprintln(stderr, "node:", withSource(oneLine(err), settings))
		return exitUsage
	}
	fmt.Fprintln(stderr, "node:", oneLine(err))
	return exitFailed
}

func newParser(line *commandLine, stdout, stderr io.Writer) (*kong.Kong, error) {
	return kong.New(line,
		kong.Name("node"),
		kong.Description("Counts, limits and caches for a cluster of processes, with no datastore to run. "+
			"Every flag also reads PEERLIMIT_<FLAG> from the environment and its name in the file of --config; "+
			"a flag beats the environment, and that beats the file. "+
			"Exit codes: 0 done, 1 failed, 2 bad usage, and 3 from check when the limit said no."),
		kong.Writers(stdout, stderr),
		kong.NoDefaultHelp(),
		kong.DefaultEnvars("PEERLIMIT"),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ValueFormatter(describeValue),
	)
}

// describeValue is a flag's help, with its default and its variable.
func describeValue(value *kong.Value) string {
	var notes []string
	if value.HasDefault {
		notes = append(notes, "default "+value.Default)
	}
	if value.Required && value.Flag != nil {
		notes = append(notes, "required")
	}
	for _, name := range value.Tag.Envs {
		notes = append(notes, "$"+name)
	}
	if len(notes) == 0 {
		return value.Help
	}
	return value.Help + " (" + strings.Join(notes, ", ") + ")"
}

// oneLine makes an error fit for the one line that it gets.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
