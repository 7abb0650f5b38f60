package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
)

// setting is a flag of a command and where its value comes from.
type setting struct {
	flag   *kong.Flag
	source string // as people read it: --bind, $PEERLIMIT_BIND, FILE:LINE or default
}

// fromDefault is the source of what nobody has set.
const fromDefault = "default"

// settingsOf returns the flags of the command that ctx has parsed, in the order
// in which they are declared. The precedence that it tells is that of kong and
// of configFile.Resolve.
func settingsOf(ctx *kong.Context, file *configFile) (all []setting) {
	given := map[*kong.Flag]bool{}
	for _, step := range ctx.Path {
		if step.Flag != nil && !step.Resolved {
			given[step.Flag] = true
		}
	}
	node := ctx.Selected()
	if node == nil {
		return nil
	}
	for _, flag := range node.Flags {
		all = append(all, setting{flag, sourceOf(flag, given[flag], file)})
	}
	return all
}

func sourceOf(flag *kong.Flag, given bool, file *configFile) string {
	if given {
		return "--" + flag.Name
	}
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return "$" + name
		}
	}
	if file != nil {
		if value, ok := file.values[flag.Name]; ok {
			return fmt.Sprintf("%s:%d", file.path, value.line)
		}
	}
	return fromDefault
}

// firstFlag is the flag that an error begins with.
var firstFlag = regexp.MustCompile(`^--([a-z][a-z-]*)`)

// withSource adds to an error where the value of the flag that it is about comes
// from, unless that is the flag itself or already said.
func withSource(message string, all []setting) string {
	match := firstFlag.FindStringSubmatch(message)
	if match == nil {
		return message
	}
	for _, s := range all {
		if s.flag.Name != match[1] || s.source == fromDefault || s.source == match[0] ||
			strings.Contains(message, strings.TrimPrefix(s.source, "$")) {
			continue
		}
		return message + " (from " + s.source + ")"
	}
	return message
}
