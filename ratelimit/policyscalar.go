package ratelimit

import (
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The values that fields of a file may have.

func stringOf(field string, v *yaml.Node) (string, error) {
	if v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
		return "", badField(field, "must be a string")
	}
	return v.Value, nil
}

// intOf takes plain decimal integers only, whatever YAML has besides: 1_000 and
// 0x10 are more often a mistake.
func intOf(field string, v *yaml.Node) (int64, error) {
	if v.Kind == yaml.ScalarNode && v.Tag == "!!int" {
		if n, err := strconv.ParseInt(v.Value, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, badField(field, "must be an integer, is %.40q", v.Value)
}

func positiveOf(field string, v *yaml.Node) (int64, error) {
	n, err := intOf(field, v)
	if err == nil && n < 1 {
		err = badField(field, "must be at least 1, is %d", n)
	}
	return n, err
}

func boolOf(field string, v *yaml.Node) (bool, error) {
	if v.Kind == yaml.ScalarNode && v.Tag == "!!bool" {
		if b, err := strconv.ParseBool(strings.ToLower(v.Value)); err == nil {
			return b, nil
		}
	}
	return false, badField(field, "must be true or false, is %.40q", v.Value)
}

func durationOf(field string, v *yaml.Node) (time.Duration, error) {
	s, err := stringOf(field, v)
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, badField(field, "must be a duration such as 60s or 1h, is %.40q", s)
	}
	return d, nil
}

func parsed[T any](field string, v *yaml.Node, parse func(string) (T, error)) (T, error) {
	s, err := stringOf(field, v)
	if err != nil {
		var none T
		return none, err
	}
	return parse(s)
}

func parseLocation(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, badField("timezone", "must be UTC or a name such as Europe/Berlin, is %.80q", name)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, badField("timezone", "must be a zone that this system knows, is %.80q", name)
	}
	return loc, nil
}
