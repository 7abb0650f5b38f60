package e2e

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// sfItem is a member of a List of RFC 9651, section 3.1, as the fields of
// draft-ietf-httpapi-ratelimit-headers-10 have them: a String, with parameters
// that are Integers or Strings.
type sfItem struct {
	name   string
	params map[string]any // int64 or string
}

// Of section 4.2.5 without escapes, 4.2.4 and 4.2.3.3.
const (
	sfString  = `"([ !#-\[\]-~]*)"`
	sfInteger = `-?[0-9]{1,15}`
	sfKey     = `[a-z*][a-z0-9_.*-]*`
)

var (
	sfMember    = regexp.MustCompile(`^` + sfString + `((?:; *` + sfKey + `=(?:` + sfInteger + `|` + sfString + `))*)(?:[ \t]*,[ \t]*|$)`)
	sfParameter = regexp.MustCompile(`; *(` + sfKey + `)=(?:(` + sfInteger + `)|` + sfString + `)`)
)

// parseSF parses a field value. It is strict, and knows nothing of the code that
// writes the fields.
func parseSF(value string) (list []sfItem, err error) {
	for rest := strings.Trim(value, " "); rest != ""; {
		m := sfMember.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("no structured field from %q on", rest)
		}
		if rest = rest[len(m[0]):]; rest == "" && strings.ContainsRune(m[0][len(m[0])-1:], ',') {
			return nil, errors.New("a trailing comma")
		}
		item := sfItem{m[1], map[string]any{}}
		for _, p := range sfParameter.FindAllStringSubmatch(m[2], -1) {
			if p[2] == "" {
				item.params[p[1]] = p[3]
			} else if item.params[p[1]], err = strconv.ParseInt(p[2], 10, 64); err != nil {
				return nil, err
			}
		}
		list = append(list, item)
	}
	return list, nil
}

// named returns the item of a policy, nil where there is none.
func named(list []sfItem, policy string) map[string]any {
	for _, item := range list {
		if item.name == policy {
			return item.params
		}
	}
	return nil
}

func TestStructuredFields(t *testing.T) {
	list, err := parseSF(`"ip";q=100;w=60,	"key";r=0; t=23;qu="concurrent-requests"`)
	assert.NoError(t, err)
	assert.Equal(t, []sfItem{
		{"ip", map[string]any{"q": int64(100), "w": int64(60)}},
		{"key", map[string]any{"r": int64(0), "t": int64(23), "qu": "concurrent-requests"}},
	}, list)
	for _, bad := range []string{`ip;q=1`, `"ip";q=1.5`, `"ip";Q=1`, `"ip",`, `"ip";q=1 "key"`, `"ü"`, `"ip";q=1234567890123456`, `"ip`, `,"ip"`} {
		_, err := parseSF(bad)
		assert.Error(t, err, bad)
	}
}
