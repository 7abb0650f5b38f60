package main

import (
	"bytes"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// printConfig writes settings as a file of --config, with the source of each
// value behind it. What is unset, and what may hold a password, is a comment.
func printConfig(w io.Writer, all []setting) error {
	var out bytes.Buffer
	out.WriteString("# The effective configuration, and where each value is from. It can be given to --config.\n")
	for _, s := range all {
		if s.flag.Hidden || notInFiles(s.flag.Name) {
			continue
		}
		value := s.flag.Target.Interface()
		if store, ok := value.(keyStoreFlag); ok && isPostgres(string(store)) {
			fmt.Fprintf(&out, "# %s: set, and not shown: it may have a password # %s\n", s.flag.Name, s.source)
			continue
		}
		if s.flag.Target.IsZero() && !s.flag.HasDefault {
			fmt.Fprintf(&out, "# %s: not set # %s\n", s.flag.Name, s.source)
			continue
		}
		if stringer, ok := value.(fmt.Stringer); ok { // a duration
			value = stringer.String()
		}
		key, node := new(yaml.Node), new(yaml.Node)
		key.SetString(s.flag.Name)
		if err := node.Encode(value); err != nil {
			return fmt.Errorf("--%s: %w", s.flag.Name, err)
		}
		node.Style |= yaml.FlowStyle
		node.LineComment = s.source
		line, err := yaml.Marshal(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{key, node}})
		if err != nil {
			return fmt.Errorf("--%s: %w", s.flag.Name, err)
		}
		out.Write(line)
	}
	_, err := w.Write(out.Bytes())
	return err
}

// notInFiles reports whether a flag makes no sense in a file of flags.
func notInFiles(name string) bool {
	return name == "help" || name == "config" || name == "print-config"
}
