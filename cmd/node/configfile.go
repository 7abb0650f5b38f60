package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"sort"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// configFile is a YAML file of flags as a kong.Resolver. Its keys are flags'
// names without the dashes in front; a key that is no command's flag is an
// error, for a misspelt one would otherwise be silently without effect.
type configFile struct {
	path   string
	values map[string]configValue
}

type configValue struct {
	line   int
	list   bool
	values []string
}

func readConfigFile(path string, app *kong.Application) (*configFile, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	file := &configFile{path: path, values: map[string]configValue{}}
	if err := file.parse(text); err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	if err := file.refuseUnknown(app); err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	return file, nil
}

func (f *configFile) errorf(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", f.path, line, fmt.Sprintf(format, args...))
}

func (f *configFile) parse(text []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) { // nothing but comments
			return nil
		}
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if more := decoder.Decode(&yaml.Node{}); !errors.Is(more, io.EOF) {
		return fmt.Errorf("%s: holds more than one document", f.path)
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		return f.errorf(root.Line, "must be a mapping of flags to values")
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, node := root.Content[i], root.Content[i+1]
		if _, twice := f.values[key.Value]; twice {
			return f.errorf(key.Line, "%s: is given twice", key.Value)
		}
		value := configValue{line: key.Line}
		switch node.Kind {
		case yaml.ScalarNode:
			if node.Tag == "!!null" {
				return f.errorf(key.Line, "%s: has no value", key.Value)
			}
			value.values = []string{node.Value}
		case yaml.SequenceNode:
			value.list = true
			for _, element := range node.Content {
				if element.Kind != yaml.ScalarNode || element.Tag == "!!null" {
					return f.errorf(element.Line, "%s: must be a list of plain values", key.Value)
				}
				value.values = append(value.values, element.Value)
			}
		default:
			return f.errorf(key.Line, "%s: must be a value or a list of values", key.Value)
		}
		f.values[key.Value] = value
	}
	return nil
}

func (f *configFile) refuseUnknown(app *kong.Application) error {
	known := map[string]bool{}
	var collect func(*kong.Node)
	collect = func(node *kong.Node) {
		for _, flag := range node.Flags {
			known[flag.Name] = true
		}
		for _, child := range node.Children {
			collect(child)
		}
	}
	collect(app.Node)
	maps.DeleteFunc(known, func(name string, _ bool) bool { return notInFiles(name) })
	var unknown []string
	for key := range f.values {
		if !known[key] {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	sort.Slice(unknown, func(i, j int) bool { return f.values[unknown[i]].line < f.values[unknown[j]].line })
	return f.errorf(f.values[unknown[0]].line, "%s: is no flag of any command", unknown[0])
}

// Validate has nothing left to do: the file was checked when it was read.
func (*configFile) Validate(*kong.Application) error { return nil }

// Resolve gives the file's value for a flag, unless the environment has one:
// kong asks a resolver for every flag that the command line left out.
func (f *configFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	value, ok := f.values[flag.Name]
	if !ok {
		return nil, nil
	}
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return nil, nil
		}
	}
	if value.list && !flag.IsSlice() {
		return nil, f.errorf(value.line, "takes one value, not a list")
	}
	text := value.values
	if flag.IsSlice() {
		text = []string{kong.JoinEscaped(value.values, flag.Tag.Sep)}
	}
	// Decoded once for nothing, so that an error can say where it comes from.
	scratch := reflect.New(flag.Target.Type()).Elem()
	scan := kong.Scan().PushTyped(text[0], kong.FlagValueToken)
	if err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, scratch); err != nil {
		return nil, f.errorf(value.line, "%s", err)
	}
	return text[0], nil
}
