package ratelimit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxPolicyFile is the size of a file of policies in bytes.
const MaxPolicyFile = 4 << 20

// FileError is a fault in a file of policies.
type FileError struct {
	Line int // counts from 1
	Err  error
}

func (e *FileError) Error() string {
	msg := e.Err.Error()
	return fmt.Sprintf("ratelimit: line %d: %s", e.Line, strings.TrimPrefix(msg, "ratelimit: "))
}

// Unwrap returns the fault itself, mostly a [*FieldError].
func (e *FileError) Unwrap() error { return e.Err }

// ParsePolicies reads a file of policies, YAML or JSON:
//
//	policies:
//	  - name: key              # required; the rest has defaults
//	    limit: 5000            # absent: callers' own numbers stay
//	    period: 1h             # a Go duration
//	    burst: 6000            # token-bucket only
//	    algorithm: token-bucket, sliding-window, fixed-window or concurrency
//	    align: day             # second, minute, hour, day, week, month; fixed-window, instead of period
//	    timezone: Europe/Berlin
//	    synchronous: true
//	    no_leases: true
//	    shadow: true
//	    unlimited: true
//	    on_unavailable: open, closed or local
//	    overrides:
//	      - {key: customer-42, times: 10}
//	      - {key: customer-43, limit: 100000, burst: 100}
//	      - {key: internal, unlimited: true}
//
// Unknown and repeated fields and names are faults. The error is a [*FileError]
// with the line.
func ParsePolicies(data []byte) ([]StoredPolicy, error) {
	root, err := parseYAML(data)
	if err != nil || root == nil {
		return nil, err
	}
	var list *yaml.Node
	if err := fields(root, "the file", func(name string, _, value *yaml.Node) error {
		if name != "policies" {
			return badField(name, "is not a field of the file; policies is")
		}
		list = value
		return nil
	}); err != nil {
		return nil, err
	}
	var all []StoredPolicy
	if list == nil || list.Tag == "!!null" {
		return nil, nil
	}
	if list.Kind != yaml.SequenceNode {
		return nil, at(list, badField("policies", "must be a list"))
	}
	if len(list.Content) > MaxPolicies {
		return nil, at(list, badField("policies", "must be at most %d, are %d", MaxPolicies, len(list.Content)))
	}
	seen := make(map[string]int)
	for _, n := range list.Content {
		s, err := policyNode(n)
		if err != nil {
			return nil, err
		}
		if line, is := seen[s.Policy.Name]; is {
			return nil, at(n, badField("name", "%s is on line %d already", s.Policy.Name, line))
		}
		seen[s.Policy.Name] = n.Line
		all = append(all, s)
	}
	return all, nil
}

// ParsePolicy reads one policy, YAML or JSON, in the form that a list of
// [ParsePolicies] has. The name may be absent; then it is the one given, and
// must not be another.
func ParsePolicy(name string, data []byte) (StoredPolicy, error) {
	root, err := parseYAML(data)
	if err != nil {
		return StoredPolicy{}, err
	}
	if root == nil {
		return StoredPolicy{}, badField("policy", "is empty")
	}
	return policyNamed(root, name)
}

func parseYAML(data []byte) (*yaml.Node, error) {
	if len(data) > MaxPolicyFile {
		return nil, badField("policies", "must have at most %d bytes, have %d", MaxPolicyFile, len(data))
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, fmt.Errorf("ratelimit: policies: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); err == nil {
		return nil, badField("policies", "must be one document, not several")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || doc.Content[0].Tag == "!!null" {
		return nil, nil
	}
	return doc.Content[0], nil
}

// at puts the line on a fault that has none.
func at(n *yaml.Node, err error) error {
	if e := (*FileError)(nil); err == nil || errors.As(err, &e) {
		return err
	}
	return &FileError{Line: n.Line, Err: err}
}

// fields calls f for each field of a mapping.
func fields(n *yaml.Node, what string, f func(name string, key, value *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return at(n, badField(what, "must be a mapping"))
	}
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return at(key, badField(what, "has a field without a name"))
		}
		if value.Kind == yaml.AliasNode || key.Alias != nil {
			return at(value, badField(key.Value, "must not be an alias"))
		}
		if seen[key.Value] {
			return at(key, badField(key.Value, "is there twice"))
		}
		seen[key.Value] = true
		if err := f(key.Value, key, value); err != nil {
			return at(value, err)
		}
	}
	return nil
}

func policyNode(n *yaml.Node) (StoredPolicy, error) { return policyNamed(n, "") }

func policyNamed(n *yaml.Node, name string) (StoredPolicy, error) {
	var s StoredPolicy
	p := &s.Policy
	lines := make(map[string]*yaml.Node)
	err := fields(n, "policy", func(field string, _, v *yaml.Node) (err error) {
		lines[field] = v
		switch field {
		case "name":
			p.Name, err = stringOf(field, v)
		case "limit":
			p.Limit, err = intOf(field, v)
		case "period":
			p.Period, err = durationOf(field, v)
		case "burst":
			p.Burst, err = intOf(field, v)
		case "algorithm":
			p.Algorithm, err = parsed(field, v, ParseAlgorithm)
		case "align":
			p.Align, err = parsed(field, v, ParseAlignment)
		case "timezone":
			p.Location, err = parsed(field, v, parseLocation)
		case "synchronous":
			p.Synchronous, err = boolOf(field, v)
		case "no_leases":
			p.NoLeases, err = boolOf(field, v)
		case "shadow":
			p.Shadow, err = boolOf(field, v)
		case "unlimited":
			p.Unlimited, err = boolOf(field, v)
		case "on_unavailable":
			p.OnUnavailable, err = parsed(field, v, ParseFailureMode)
		case "overrides":
			s.Overrides, err = overridesOf(v)
		default:
			err = badField(field, "is not a field of a policy")
		}
		return err
	})
	if err != nil {
		return StoredPolicy{}, err
	}
	if name != "" {
		if p.Name != "" && p.Name != name {
			return StoredPolicy{}, at(lines["name"], badField("name", "must be %s or absent, is %.80q", name, p.Name))
		}
		p.Name = name
	}
	if err := s.Validate(); err != nil {
		where := n
		if f := (*FieldError)(nil); errors.As(err, &f) {
			field, _, _ := strings.Cut(f.Field, ".")
			if field == "policy" {
				field = "name"
			}
			if v := lines[field]; v != nil {
				where = v
			}
		}
		return StoredPolicy{}, at(where, err)
	}
	return s, nil
}

func overridesOf(v *yaml.Node) ([]Override, error) {
	if v.Kind != yaml.SequenceNode {
		return nil, badField("overrides", "must be a list")
	}
	if len(v.Content) > MaxOverrides {
		return nil, badField("overrides", "must be at most %d, are %d", MaxOverrides, len(v.Content))
	}
	all := make([]Override, len(v.Content))
	for i, n := range v.Content {
		o := &all[i]
		err := fields(n, "overrides", func(field string, _, v *yaml.Node) (err error) {
			switch field {
			case "key":
				o.Key, err = stringOf(field, v)
			case "times":
				o.Times, err = positiveOf(field, v)
			case "limit":
				o.Limit, err = positiveOf(field, v)
			case "burst":
				o.Burst, err = positiveOf(field, v)
			case "unlimited":
				o.Unlimited, err = boolOf(field, v)
			default:
				err = badField(field, "is not a field of an override")
			}
			return err
		})
		if err == nil {
			// The policy's own numbers are judged with all of it.
			err = o.validate(&Policy{Name: "x", Limit: MaxLimit, Period: MinPeriod})
		}
		if err != nil {
			return nil, at(n, err)
		}
	}
	return all, nil
}
