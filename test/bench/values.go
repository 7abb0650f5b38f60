package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/cluster"
)

// Values that are cached: what verifying a key needs, or an application's own.
const (
	valueBytes = 500
	valueTTL   = 10 * time.Minute
)

var errMiss = errors.New("a miss")

func valueKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = "value:" + strconv.Itoa(i)
	}
	return keys
}

func value() []byte { return []byte(strings.Repeat("v", valueBytes)) }

const valueCount = 1000

// valuesJob returns the jobs of a member that are not decisions; nil: it has none
// of that name.
func (m *member) valuesJob(ctx context.Context, name string) (*job, error) {
	switch name {
	case "auth":
		return m.verification(ctx)
	case "cache":
		keys := valueKeys(valueCount)
		if err := m.setAll(ctx, keys); err != nil {
			return nil, err
		}
		return &job{keys: keys, ask: func(ctx context.Context, key string) (bool, error) {
			_, ok, err := m.node.KV().Get(ctx, key)
			if err == nil && !ok {
				err = errMiss
			}
			return ok, err
		}}, nil
	case "cache-set":
		v := value()
		return &job{keys: valueKeys(valueCount), ask: func(ctx context.Context, key string) (bool, error) {
			err := m.node.KV().Set(ctx, key, v, valueTTL)
			return err == nil, err
		}}, m.awaitKV(ctx)
	case "cache-near":
		keys := valueKeys(valueCount)
		if err := m.awaitKV(ctx); err != nil {
			return nil, err
		}
		for _, key := range keys {
			if err := m.values.Set(ctx, key, value(), valueTTL); err != nil {
				return nil, err
			}
		}
		return &job{keys: keys, ask: func(ctx context.Context, key string) (bool, error) {
			_, ok, err := m.values.Get(ctx, key)
			if err == nil && !ok {
				err = errMiss
			}
			return ok, err
		}}, nil
	}
	return nil, nil
}

// setAll stores the values.
func (m *member) setAll(ctx context.Context, keys []string) error {
	if err := m.awaitKV(ctx); err != nil {
		return err
	}
	for _, key := range keys {
		if err := m.node.KV().Set(ctx, key, value(), valueTTL); err != nil {
			return fmt.Errorf("set %s: %w", key, err)
		}
	}
	return nil
}

// settledFor is for how long this member must have known of no change before its
// KV is measured: the others may have learned of the last one later.
const settledFor = 2 * time.Second

// awaitKV waits until values can be stored: the store starts after the member. Unless
// the member is hasty it also waits until members have not changed for some
// seconds: before, two of them are asked for a value.
func (m *member) awaitKV(ctx context.Context) error {
	kv := m.node.KV()
	var settled time.Time
	for {
		err := kv.Set(ctx, "probe", value(), valueTTL)
		switch {
		case errors.Is(err, cluster.ErrKVUnavailable):
			kv.ResetBreaker()
		case err != nil || m.hasty:
			return err
		case settled.IsZero() && kv.Stats().Settled:
			settled = time.Now()
		case !settled.IsZero() && time.Since(settled) > settledFor:
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// verification is a known key's, whose entry is as long as the values.
func (m *member) verification(ctx context.Context) (*job, error) {
	issued, err := m.keys.Create(ctx, auth.Spec{
		Project: "bench", Scopes: []string{"orders:read", "orders:write"},
		Metadata: map[string]string{"note": strings.Repeat("m", valueBytes-100)},
	})
	if err != nil {
		return nil, err
	}
	verify := func(ctx context.Context, key string) (bool, error) {
		r, err := m.keys.Verify(ctx, key)
		if err == nil && r.Verdict != auth.Valid {
			err = fmt.Errorf("verdict %v", r.Verdict)
		}
		return r.Verdict == auth.Valid, err
	}
	key := issued.Secret.Reveal()
	if _, err := verify(ctx, key); err != nil {
		return nil, err
	}
	return &job{ask: verify, keys: []string{key}}, nil
}
