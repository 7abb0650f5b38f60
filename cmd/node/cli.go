package main

import (
	"errors"

	"github.com/alecthomas/kong"
)

// commandLine is the grammar: one field a command, declared in the file of that
// command.
type commandLine struct {
	Help   helpFlag `short:"h" help:"Show what the program, or a command, does and takes."`
	Config string   `placeholder:"FILE" help:"YAML file of flags and their values: one key a flag, a list where it may be given several times."`

	File *configFile `kong:"-"` // what --config names, once it has been read

	Demo   demoCommand   `cmd:"" help:"See it work: three processes, one limit, one of them killed, a key revoked."`
	Serve  serveCommand  `cmd:"" help:"Run one member of a cluster."`
	Check  checkCommand  `cmd:"" help:"Ask a running member for one decision: exit 0 when allowed, 3 when denied."`
	Status statusCommand `cmd:"" help:"Show a running member's view of its cluster."`
	Keys   keysCommand   `cmd:"" help:"Administer API keys by way of a running member."`
}

// BeforeResolve reads the configuration file, once the flags and the
// environment have said where it is.
func (c *commandLine) BeforeResolve(ctx *kong.Context) error {
	for _, flag := range ctx.Model.Flags {
		if flag.Name != "config" {
			continue
		}
		path, _ := ctx.FlagValue(flag).(string)
		if path == "" {
			return nil
		}
		values, err := readConfigFile(path, ctx.Model)
		if err != nil {
			return err
		}
		c.File = values
		ctx.AddResolver(values)
	}
	return nil
}

// errHelpShown ends the parsing once help has been printed.
var errHelpShown = errors.New("help was shown")

// helpFlag prints help instead of ending the process, as kong's own does:
// run must be able to return.
type helpFlag bool

// BeforeReset is called where the flag is given, before anything is required.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	if err := ctx.PrintUsage(false); err != nil {
		return err
	}
	return errHelpShown
}
