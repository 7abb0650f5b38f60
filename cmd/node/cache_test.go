package main

import (
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/cache"
	"github.com/peerlimit/peerlimit/cluster"
)

// testCache is the HTTP API for a cache of this process alone.
func testCache(t *testing.T) *handler {
	t.Helper()
	kv := cluster.LocalKV(0)
	config := cache.Config{KV: kv}
	values, err := cache.New[[]byte](config)
	require.NoError(t, err)
	counters, err := cache.NewCounter(config)
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, counters.Close())
		assert.NoError(t, values.Close())
	})
	h := newHandler(&tokens{}, testProbes(new(probes)))
	h.open((&cacheAPI{values: values, counters: counters, store: kv.Stats, log: slog.New(slog.DiscardHandler)}).routes())
	return h
}

func TestValuesAreAnyBytesUnderAnyKey(t *testing.T) {
	h := testCache(t)
	for key, value := range map[string]string{
		"plain": "text", "empty": "", "a%2Fb": "a slash", "%00%ff": "\x00\xff", "get": "no route's name",
		"large": strings.Repeat("x", 1<<20), strings.Repeat("k", 4096): "a long key",
	} {
		path := "/v1/cache/" + key
		require.Equal(t, 404, ask(h, "GET", path, "").status, "%.40s", key)
		a := ask(h, "PUT", path+"?ttl=1h", value)
		require.Equal(t, 204, a.status, "%.40s: %s", key, a.body)
		a = ask(h, "GET", path, "")
		assert.Equal(t, 200, a.status)
		assert.Equal(t, value, a.body)
		ms, err := strconv.Atoi(a.header.Get("Cache-TTL-Ms"))
		require.NoError(t, err)
		assert.InDelta(t, 3_600_000, ms, 10_000)
		left := decode[ttlView](t, ask(h, "GET", path+"/ttl", ""))
		assert.InDelta(t, 3_600_000, left.TTLMS, 10_000)
		assert.Equal(t, 204, ask(h, "DELETE", path, "").status)
		assert.Equal(t, 404, ask(h, "GET", path, "").status)
		assert.Equal(t, 404, ask(h, "GET", path+"/ttl", "").status)
	}
}

func TestManyValuesAtOnce(t *testing.T) {
	h := testCache(t)
	ask(h, "PUT", "/v1/cache/a?ttl=1m", "one")
	ask(h, "PUT", "/v1/cache/b?ttl=1m", "")
	a := ask(h, "POST", "/v1/cache/get", `{"keys":["a","b","c"]}`)
	assert.Equal(t, 200, a.status)
	assert.JSONEq(t, `{"values":{"a":"b25l","b":""},"missing":["c"]}`, a.body)
	stats := decode[cacheView](t, ask(h, "GET", "/v1/cache", ""))
	assert.True(t, stats.Healthy)
	assert.Equal(t, "closed", stats.Breaker)
	assert.Equal(t, uint64(2), stats.Sets)
}

func TestCountersAreCounted(t *testing.T) {
	h := testCache(t)
	incr := func(body string) answer { return ask(h, "POST", "/v1/cache/n/incr", body) }
	assert.JSONEq(t, `{"value":1}`, incr(`{"ttl":"1h"}`).body)
	assert.JSONEq(t, `{"value":11}`, incr(`{"delta":10,"ttl":"2h"}`).body)
	assert.JSONEq(t, `{"value":9}`, incr(`{"delta":-2,"ttl":"1h"}`).body)
	assert.InDelta(t, 3_600_000, decode[ttlView](t, ask(h, "GET", "/v1/cache/n/ttl", "")).TTLMS, 10_000, "not renewed")
	got := decode[counterView](t, ask(h, "GET", "/v1/cache/n/counter", ""))
	assert.Equal(t, int64(9), got.Value)
	assert.InDelta(t, 3_600_000, *got.TTLMS, 10_000)
	over := incr(`{"delta":9223372036854775807,"ttl":"1h"}`)
	assert.Equal(t, 400, over.status)
	assert.Equal(t, "delta", over.problem(t).Errors[0].Field)
	assert.Equal(t, 204, ask(h, "DELETE", "/v1/cache/n/counter", "").status)
	assert.Equal(t, 404, ask(h, "GET", "/v1/cache/n/counter", "").status)
}

func TestTheOtherKindIsAConflict(t *testing.T) {
	h := testCache(t)
	require.Equal(t, 200, ask(h, "POST", "/v1/cache/n/incr", `{"ttl":"1h"}`).status)
	require.Equal(t, 204, ask(h, "PUT", "/v1/cache/v?ttl=1h", "x").status)
	for _, c := range []struct{ method, path, body string }{
		{"PUT", "n?ttl=1m", "x"},
		{"GET", "n", ""},
		{"POST", "v/incr", `{"ttl":"1m"}`},
		{"GET", "v/counter", ""},
		{"DELETE", "v/counter", ""},
	} {
		a := ask(h, c.method, "/v1/cache/"+c.path, c.body)
		assert.Equal(t, 409, a.status, "%s %s: %s", c.method, c.path, a.body)
	}
	assert.Equal(t, 200, ask(h, "GET", "/v1/cache/n/ttl", "").status, "both have a time to live")
	assert.Equal(t, 200, ask(h, "GET", "/v1/cache/v/ttl", "").status)
}

func TestBadCacheRequestsNameTheField(t *testing.T) {
	h := testCache(t)
	many, err := json.Marshal(map[string][]string{"keys": make([]string, 1001)})
	require.NoError(t, err)
	for _, c := range []struct{ method, path, body, field string }{
		{"PUT", "k", "x", "ttl"},
		{"PUT", "k?ttl=0s", "x", "ttl"},
		{"PUT", "k?ttl=-1s", "x", "ttl"},
		{"PUT", "k?ttl=876000h", "x", "ttl"},
		{"PUT", "k?ttl=5", "x", "ttl"},
		{"PUT", "k?ttl=1m&tll=2m", "x", "tll"},
		{"PUT", strings.Repeat("k", 4097) + "?ttl=1m", "x", "key"},
		{"PUT", "k?ttl=1m", strings.Repeat("x", 1<<20+1), "body"},
		{"POST", "k/incr", `{}`, "ttl"},
		{"POST", "k/incr", `{"ttl":"0s"}`, "ttl"},
		{"POST", "k/incr", `{"ttl":"1m","delta":1.5}`, "delta"},
		{"POST", "get", `{}`, "keys"},
		{"POST", "get", `{"keys":[]}`, "keys"},
		{"POST", "get", `{"keys":["a",""]}`, "keys[1]"},
		{"POST", "get", string(many), "keys[0]"},
	} {
		a := ask(h, c.method, "/v1/cache/"+c.path, c.body)
		if assert.Equal(t, 400, a.status, "%s %.40s: %s", c.method, c.path, a.body) {
			assert.Equal(t, c.field, a.problem(t).Errors[0].Field, "%s %.40s", c.method, c.path)
		}
	}
}
