package ratelimit

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestAdmit(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	busy, rate := InFlight("busy", 1, time.Minute), PerMinute("rate", 2)
	checks := []Check{{Policy: rate, Key: "k", Cost: 1}, {Policy: busy, Key: "k", Cost: 1}}
	a, err := l.Admit(ctx, checks...)
	if err != nil || !a.Allowed || len(a.Decisions) != 2 || a.Policies[0].Name != "busy" || a.Policies[1].Name != "rate" {
		t.Fatalf("%+v, %v", a, err)
	}
	denied, err := l.Admit(ctx, checks...)
	if err != nil || denied.Allowed || len(denied.Decisions) != 1 || denied.Unavailable {
		t.Fatalf("no place: %+v, %v", denied, err)
	}
	if d, _ := l.Status(ctx, rate, "k"); d.Remaining != 1 {
		t.Errorf("denied by the places, and spent: %+v", d)
	}
	for range 2 {
		a.Release(ctx)
	}
	if _, err := l.AllowN(ctx, rate, "k", 1); err != nil {
		t.Fatal(err)
	}
	// Denied by the rate: the place is free without a release.
	if denied, err = l.Admit(ctx, checks...); err != nil || denied.Allowed || len(denied.Decisions) != 2 {
		t.Fatalf("no permit: %+v, %v", denied, err)
	}
	if d, _ := l.Status(ctx, busy, "k"); !d.Allowed {
		t.Errorf("a denied admission holds its place: %+v", d)
	}
	// So it is after bad input.
	var f *FieldError
	if _, err := l.Admit(ctx, checks[1], Check{Policy: rate, Key: "", Cost: 1}); !errors.As(err, &f) {
		t.Errorf("%v", err)
	}
	if d, _ := l.Status(ctx, busy, "k"); !d.Allowed {
		t.Errorf("a refused admission holds its place: %+v", d)
	}
	if a, err := l.Admit(ctx); err != nil || !a.Allowed {
		t.Errorf("nothing asked: %+v, %v", a, err)
	}
	if a, err := l.Admit(ctx, Check{Policy: busy, Key: "k"}); err != nil || !a.Allowed || len(a.Decisions) != 0 {
		t.Errorf("a cost of 0: %+v, %v", a, err)
	}
	if _, err := l.Admit(ctx, make([]Check, MaxChecks+1)...); !errors.As(err, &f) || f.Field != "checks" {
		t.Errorf("%v", err)
	}
	(*Admission)(nil).Release(ctx)
}
