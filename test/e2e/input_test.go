package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Bad input in every field gets 400 with the field's name, and spends nothing.
func TestBadInput(t *testing.T) {
	m := StartMember(t, MemberOptions{Name: "m1", Cluster: "input"})
	good := map[string]string{"key": `"k"`, "limit": `10`, "period": `"24h"`, "burst": `10`, "cost": `1`,
		"algorithm": `"token-bucket"`, "policy": `"default"`, "shadow": `false`}
	huge := `"` + strings.Repeat("x", 2<<20) + `"`
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	const missing = "-"
	text := []string{`""`, `7`, `true`, `null`, `{}`, huge, deep}
	number := []string{`0`, `-1`, `"7"`, `1.5`, `1e3`, `9007199254740993`, `1e999`, `NaN`, `-Infinity`, `"NaN"`, `null`, huge, deep}
	bad := map[string][]string{
		"key":       append([]string{missing}, text...),
		"limit":     append([]string{missing}, number...),
		"period":    append([]string{missing, `"0s"`, `"-1s"`, `"60"`, `"NaN"`, `"999999999h"`}, text...),
		"burst":     number,
		"cost":      append([]string{`11`}, number...),
		"algorithm": append([]string{`"leaky-bucket"`}, text...),
		"policy":    append([]string{`"a b"`}, text...),
		"shadow":    []string{`0`, `"true"`, `null`, huge, deep},
		"unknown":   []string{`1`, huge, deep},
	}
	ctx, cancel := short()
	defer cancel()
	tried := 0
	for field, values := range bad {
		for _, value := range values {
			var members []string
			for name, fine := range good {
				if name != field {
					members = append(members, `"`+name+`":`+fine)
				}
			}
			if value != missing {
				members = append(members, `"`+field+`":`+value)
			}
			body := "{" + strings.Join(members, ",") + "}"
			status, header, answer, err := m.Request(ctx, http.MethodPost, "/v1/ratelimit/check", []byte(body))
			require.NoError(t, err, "%s = %.60s", field, value)
			tried++
			if !assert.Equal(t, http.StatusBadRequest, status, "%s = %.60s: %.300s", field, value, answer) {
				continue
			}
			assert.Equal(t, "application/problem+json", header.Get("Content-Type"))
			var p Problem
			require.NoError(t, json.Unmarshal(answer, &p), "%.300s", answer)
			if assert.NotEmpty(t, p.Errors, "%.300s", answer) {
				assert.Equal(t, field, p.Errors[0].Field, "%s = %.60s", field, value)
			}
		}
	}
	t.Logf("%d bad checks were refused", tried)
	keys, err := m.Keys(ctx)
	require.NoError(t, err)
	assert.Zero(t, keys, "bad input has spent something")
	d, err := m.Check(ctx, Check{Key: "k", Limit: 10, Period: "24h"}.Body())
	require.NoError(t, err)
	assert.Equal(t, int64(9), d.Remaining)
}
