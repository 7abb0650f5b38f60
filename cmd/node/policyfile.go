package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/peerlimit/peerlimit/ratelimit"
)

// readPolicies reads the file of --policies.
func readPolicies(path string) ([]ratelimit.StoredPolicy, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("--policies: %v", err)
	}
	policies, err := ratelimit.ParsePolicies(text)
	if line, ok := errors.AsType[*ratelimit.FileError](err); ok {
		return nil, usagef("--policies: %s:%d: %v", path, line.Line, line.Err)
	}
	if err != nil {
		return nil, usagef("--policies: %s: %v", path, err)
	}
	return policies, nil
}

// How long it is tried to store the policies of a file when a member starts:
// others may start, leave or die at the same time.
const (
	storeWithin = 10 * time.Second
	storeAgain  = 200 * time.Millisecond
)

// loadPolicies stores the file's policies and returns when this member knows all
// that are stored.
func loadPolicies(ctx context.Context, limits *ratelimit.Limiter, policies []ratelimit.StoredPolicy) error {
	if len(policies) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	for {
		err := limits.LoadPolicies(ctx, policies)
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(storeAgain):
		case <-ctx.Done():
			return err
		}
	}
}
