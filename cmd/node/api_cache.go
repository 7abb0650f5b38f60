package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/peerlimit/peerlimit/cache"
	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cmd/node/internal/strictjson"
)

// cacheAPI is the part of the HTTP API that is about cached values and counters.
// A key is one or the other. In a path it is one segment: slashes are escaped.
type cacheAPI struct {
	values   *cache.Cache[[]byte]
	counters *cache.Counter
	store    func() cluster.KVStats
	log      *slog.Logger
}

func (a *cacheAPI) routes() []route {
	return []route{
		{"GET /v1/cache", forUsers, a.stats},
		{"POST /v1/cache/get", forUsers, a.getMany},
		{"GET /v1/cache/{key}", forUsers, keyed(a.get)},
		{"PUT /v1/cache/{key}", forUsers, keyed(a.put)},
		{"DELETE /v1/cache/{key}", forUsers, keyed(a.delete)},
		{"GET /v1/cache/{key}/ttl", forUsers, keyed(a.ttl)},
		{"POST /v1/cache/{key}/incr", forUsers, keyed(a.incr)},
		{"GET /v1/cache/{key}/counter", forUsers, keyed(a.counter)},
		{"DELETE /v1/cache/{key}/counter", forUsers, keyed(a.resetCounter)},
	}
}

// keyed takes the key from the path, and refuses one that is too long.
func keyed(f func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key := r.PathValue("key")
		if !validCacheKey(key) {
			refuseInput(w, badCacheKey("key", key))
			return
		}
		f(w, r, key)
	}
}

func validCacheKey(key string) bool { return len(key) > 0 && len(key) <= cache.MaxKey }

func badCacheKey(field, key string) strictjson.FieldError {
	return strictjson.FieldError{Field: field, Detail: fmt.Sprintf("must be 1 to %d bytes, is %d", cache.MaxKey, len(key))}
}

// cacheView is the answer of GET /v1/cache, for the member that answers.
type cacheView struct {
	Healthy bool   `json:"healthy"`
	Breaker string `json:"breaker"`
	// Members is how many members the shared store knows, this one among them.
	Members int    `json:"members"`
	State   string `json:"state"`
	Entries int    `json:"entries"` // held by this member, copies among them
	Bytes   int64  `json:"bytes"`
	// What follows counts since the member started.
	NearHits      uint64 `json:"near_hits"`
	Hits          uint64 `json:"hits"`
	Misses        uint64 `json:"misses"`
	Errors        uint64 `json:"errors"`
	Open          uint64 `json:"open"` // not asked: the breaker was open
	Coalesced     uint64 `json:"coalesced"`
	Sets          uint64 `json:"sets"`
	Deletes       uint64 `json:"deletes"`
	DroppedWrites uint64 `json:"dropped_writes"`
	EvictedLive   uint64 `json:"evicted_live"`
	Restarts      uint64 `json:"restarts"`
}

func (a *cacheAPI) stats(w http.ResponseWriter, _ *http.Request) {
	s, kv := a.values.Stats(), a.store()
	writeJSONValue(w, http.StatusOK, cacheView{
		Healthy: a.values.Healthy(), Breaker: a.values.BreakerState(),
		Members: kv.Members, State: kv.State, Entries: kv.Entries, Bytes: kv.Bytes,
		NearHits: s.NearHits, Hits: s.Hits, Misses: s.Misses, Errors: s.Errors, Open: s.Open, Coalesced: s.Coalesced,
		Sets: s.Sets, Deletes: s.Deletes, DroppedWrites: s.DroppedWrites,
		EvictedLive: kv.EvictedLive, Restarts: kv.Restarts,
	})
}

// ttlHeader tells what is left of a value's time, where the store can be asked.
const ttlHeader = "Cache-TTL-Ms"

func (a *cacheAPI) get(w http.ResponseWriter, r *http.Request, key string) {
	value, found, err := a.values.Get(r.Context(), key)
	switch {
	case err != nil:
		a.fail(w, r, err)
		return
	case !found:
		writeProblem(w, http.StatusNotFound, "no value under this key")
		return
	}
	if ttl, known, err := a.values.TTL(r.Context(), key); err == nil && known {
		w.Header().Set(ttlHeader, strconv.FormatInt(ttl.Milliseconds(), 10))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(value)))
	_, _ = w.Write(value)
}

func (a *cacheAPI) put(w http.ResponseWriter, r *http.Request, key string) {
	query, fields := readQuery(r, "ttl")
	ttl, bad := query.duration("ttl")
	if fields = append(fields, bad...); fields != nil {
		refuseInput(w, fields...)
		return
	}
	if r.ContentLength > cache.MaxValue {
		refuseLong(w)
		return
	}
	value, err := io.ReadAll(io.LimitReader(r.Body, cache.MaxValue+1)) // kept, so no buffer of the pool
	switch {
	case err != nil:
		refuseInput(w, strictjson.FieldError{Field: "body", Detail: "ended before its length"})
		return
	case len(value) > cache.MaxValue:
		refuseLong(w)
		return
	}
	if err := a.values.Set(r.Context(), key, value, ttl); err != nil {
		a.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func refuseLong(w http.ResponseWriter) {
	w.Header().Set("Connection", "close") // the rest is not read
	refuseInput(w, strictjson.FieldError{Field: "body", Detail: "must be at most " + strconv.Itoa(cache.MaxValue) + " bytes"})
}

func (a *cacheAPI) delete(w http.ResponseWriter, r *http.Request, key string) {
	if err := a.values.Delete(r.Context(), key); err != nil {
		a.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

const (
	maxKeysAtOnce   = 1000
	maxValuesAtOnce = 32 << 20 // bytes
)

// manyView is the answer of POST /v1/cache/get; values are in base64.
type manyView struct {
	Values  map[string][]byte `json:"values"`
	Missing []string          `json:"missing"`
}

func (a *cacheAPI) getMany(w http.ResponseWriter, r *http.Request) {
	buffer := getBodyBuffer()
	defer buffer.release()
	var keys []string
	if !buffer.read(w, r, func(in *strictjson.Reader) { keys = readKeys(in) }) {
		return
	}
	found, err := a.values.GetMany(r.Context(), keys)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	view := manyView{Values: make(map[string][]byte, len(found)), Missing: []string{}}
	size := 0
	for _, key := range keys {
		value, is := found[key]
		if !is {
			view.Missing = append(view.Missing, key)
			continue
		}
		if view.Values[key] == nil {
			size += len(value)
		}
		if value == nil {
			value = []byte{}
		}
		view.Values[key] = value
	}
	if size > maxValuesAtOnce {
		refuseInput(w, strictjson.FieldError{Field: "keys", Detail: "have values of more than " + strconv.Itoa(maxValuesAtOnce) + " bytes in all"})
		return
	}
	writeJSONValue(w, http.StatusOK, view)
}

func readKeys(r *strictjson.Reader) (keys []string) {
	given := false
	for name := range r.Object() {
		if string(name) != "keys" {
			r.Unknown()
			continue
		}
		given = true
		for range r.Array() {
			key := r.String()
			if !validCacheKey(key) {
				r.Failf("%s", badCacheKey("", key).Detail)
			}
			keys = append(keys, key)
		}
	}
	if !given || len(keys) == 0 || len(keys) > maxKeysAtOnce {
		r.FailFieldf("keys", "must be 1 to %d keys", maxKeysAtOnce)
	}
	return keys
}

// ttlView is the answer of GET /v1/cache/{key}/ttl.
type ttlView struct {
	TTLMS int64 `json:"ttl_ms"`
}

// ttl answers for values and counters.
func (a *cacheAPI) ttl(w http.ResponseWriter, r *http.Request, key string) {
	ttl, found, err := a.values.TTL(r.Context(), key)
	if errors.Is(err, cache.ErrWrongKind) || err == nil && !found {
		if ttl, found, err = a.counters.TTL(r.Context(), key); errors.Is(err, cache.ErrWrongKind) {
			found, err = false, nil // a value that came this moment
		}
	}
	switch {
	case err != nil:
		a.fail(w, r, err)
	case !found:
		writeProblem(w, http.StatusNotFound, "nothing under this key")
	default:
		writeJSONValue(w, http.StatusOK, ttlView{ttl.Milliseconds()})
	}
}

// incr adds to a counter, which its first increment makes.
func (a *cacheAPI) incr(w http.ResponseWriter, r *http.Request, key string) {
	buffer := getBodyBuffer()
	defer buffer.release()
	delta, ttl := int64(1), time.Duration(0)
	if !buffer.read(w, r, func(in *strictjson.Reader) { delta, ttl = readIncr(in) }) {
		return
	}
	value, err := a.counters.Incr(r.Context(), key, delta, ttl)
	switch {
	case errors.Is(err, cache.ErrInvalid):
		refuseInput(w, strictjson.FieldError{Field: "delta", Detail: "makes a sum beyond 64 bits"})
	case err != nil:
		a.fail(w, r, err)
	default:
		writeJSONValue(w, http.StatusOK, counterView{Value: value})
	}
}

func readIncr(r *strictjson.Reader) (delta int64, ttl time.Duration) {
	delta = 1
	given := false
	for name := range r.Object() {
		switch string(name) {
		case "delta":
			delta = r.Int(math.MinInt64, math.MaxInt64)
		case "ttl":
			given, ttl = true, r.Duration(cache.MinTTL, cache.MaxTTL)
		default:
			r.Unknown()
		}
	}
	if !given {
		r.FailFieldf("ttl", "is required")
	}
	return delta, ttl
}

// counterView is what a counter has.
type counterView struct {
	Value int64  `json:"value"`
	TTLMS *int64 `json:"ttl_ms,omitempty"`
}

func (a *cacheAPI) counter(w http.ResponseWriter, r *http.Request, key string) {
	value, found, err := a.counters.Get(r.Context(), key)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if !found {
		writeProblem(w, http.StatusNotFound, "no counter under this key")
		return
	}
	view := counterView{Value: value}
	if ttl, known, err := a.counters.TTL(r.Context(), key); err == nil && known {
		view.TTLMS = new(ttl.Milliseconds())
	}
	writeJSONValue(w, http.StatusOK, view)
}

func (a *cacheAPI) resetCounter(w http.ResponseWriter, r *http.Request, key string) {
	if _, err := a.counters.Reset(r.Context(), key); err != nil {
		a.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// fail answers an error of the cache.
func (a *cacheAPI) fail(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, cache.ErrWrongKind):
		writeProblem(w, http.StatusConflict, "this key is a counter's where a value was given, or the other way round")
	case errors.Is(err, cache.ErrInvalid):
		writeProblem(w, http.StatusBadRequest, err.Error())
	case r.Context().Err() != nil:
		writeProblem(w, http.StatusServiceUnavailable, "the request was given up")
	case errors.Is(err, cache.ErrClosed), errors.Is(err, cluster.ErrClosed):
		writeProblem(w, http.StatusServiceUnavailable, "this member is stopping")
	case errors.Is(err, cluster.ErrUncertain):
		w.Header().Set("Retry-After", "1")
		writeProblem(w, http.StatusServiceUnavailable, "nobody who may count this answered in time; it may have been counted, once")
	case errors.Is(err, cluster.ErrUnavailable), errors.Is(err, cluster.ErrBusy), errors.Is(err, cache.ErrUnavailable):
		w.Header().Set("Retry-After", "1")
		writeProblem(w, http.StatusServiceUnavailable, "no member that may do this answered in time")
	default:
		a.log.Error("http request failed", "method", r.Method, "route", r.Pattern, "error", err)
		writeProblem(w, http.StatusInternalServerError, "")
	}
}

// duration returns a time to live of the query, which must be there.
func (q query) duration(name string) (time.Duration, []strictjson.FieldError) {
	text, given := q[name]
	if !given {
		return 0, []strictjson.FieldError{{Field: name, Detail: "is required, as in " + name + "=5m"}}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < cache.MinTTL || d > cache.MaxTTL {
		return 0, []strictjson.FieldError{{Field: name, Detail: "must be a duration from 1ms to 8784h, as in 5m"}}
	}
	return d, nil
}
