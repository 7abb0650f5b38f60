package main

import (
	"errors"
	"strconv"

	"github.com/peerlimit/peerlimit/cmd/node/internal/strictjson"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// defaultPolicy is the policy of a check that names none.
const defaultPolicy = "default"

// checkBody is the body of a check: one, or several under "checks".
type checkBody struct {
	one         ratelimit.Check
	checks      []ratelimit.Check // nil where the body is one check
	independent bool
}

// fields of a check, as bits of what was given.
type fields uint8

const (
	fieldKey fields = 1 << iota
	fieldLimit
	fieldPeriod
)

// read reads the body by a strictjson.Reader.
func (b *checkBody) read(r *strictjson.Reader) {
	b.one = newCheck()
	var given fields
	var stray string // a check's field beside "checks" is a mistake
	several := false
	for name := range r.Object() {
		switch string(name) {
		case "checks":
			several = true
			b.readChecks(r)
		case "independent":
			b.independent = r.Bool()
		default:
			if !readCheckField(r, name, &b.one, &given) {
				r.Unknown()
			} else if stray == "" {
				stray = string(name)
			}
		}
	}
	switch {
	case several && stray != "":
		r.FailFieldf(stray, "must be in each of the checks, not beside them")
	case several && len(b.checks) == 0:
		r.FailFieldf("checks", "must be from 1 to %d checks", ratelimit.MaxChecks)
	case !several && b.independent:
		r.FailFieldf("independent", "is for a body with checks")
	case !several:
		requireCheck(r, given)
	}
}

func newCheck() ratelimit.Check {
	return ratelimit.Check{Cost: 1, Policy: ratelimit.Policy{Name: defaultPolicy}}
}

func (b *checkBody) readChecks(r *strictjson.Reader) {
	b.checks = []ratelimit.Check{}
	n := 0
	for i := range r.Array() {
		if n = i + 1; n > ratelimit.MaxChecks {
			r.Skip()
			continue
		}
		check := newCheck()
		var given fields
		for name := range r.Object() {
			if !readCheckField(r, name, &check, &given) {
				r.Unknown()
			}
		}
		requireCheck(r, given)
		b.checks = append(b.checks, check)
	}
	if n > ratelimit.MaxChecks {
		r.Failf("must be from 1 to %d checks, are %d", ratelimit.MaxChecks, n)
	}
}

// readCheckField reads one member of a check, if it is one.
func readCheckField(r *strictjson.Reader, name []byte, c *ratelimit.Check, given *fields) bool {
	switch string(name) {
	case "key":
		*given |= fieldKey
		if c.Key = r.String(); len(c.Key) > ratelimit.MaxKeyLen {
			r.Failf("must be 1 to %d bytes, is %d", ratelimit.MaxKeyLen, len(c.Key))
		}
	case "limit":
		*given |= fieldLimit
		c.Policy.Limit = r.Int(1, ratelimit.MaxLimit)
	case "period":
		*given |= fieldPeriod
		c.Policy.Period = r.Duration(ratelimit.MinPeriod, ratelimit.MaxPeriod)
	case "burst":
		c.Policy.Burst = r.Int(1, ratelimit.MaxLimit)
	case "cost":
		c.Cost = r.Int(1, ratelimit.MaxLimit)
	case "algorithm":
		readAlgorithm(r, c)
	case "policy":
		c.Policy.Name = r.String()
	case "shadow":
		c.Policy.Shadow = r.Bool()
	case "synchronous":
		c.Policy.Synchronous = r.Bool()
	default:
		return false
	}
	return true
}

func readAlgorithm(r *strictjson.Reader, c *ratelimit.Check) {
	text := r.Text()
	if text == nil { // of another type, which has been said
		return
	}
	for _, a := range [...]ratelimit.Algorithm{ratelimit.TokenBucket, ratelimit.SlidingWindow, ratelimit.FixedWindow} {
		if string(text) == a.String() {
			c.Policy.Algorithm = a
			return
		}
	}
	r.Failf("must be token-bucket, sliding-window or fixed-window")
}

func requireCheck(r *strictjson.Reader, given fields) {
	for _, required := range [...]struct {
		bit  fields
		name string
	}{{fieldKey, "key"}, {fieldLimit, "limit"}, {fieldPeriod, "period"}} {
		if given&required.bit == 0 {
			r.FailFieldf(required.name, "is required")
		}
	}
}

// refuseChecks finds what the limiter would refuse, for checks that are decided
// one by one: a mistake in the last must not cost what the first has spent. What
// a stored policy allows is not known here.
func refuseChecks(checks []ratelimit.Check, stored func(policy string) bool) (fields []strictjson.FieldError) {
	for i := range checks {
		c := &checks[i]
		err := c.Policy.Validate()
		most := c.Policy.Burst
		if most == 0 {
			most = c.Policy.Limit
		}
		switch {
		case err != nil:
		case c.Key == "":
			err = &ratelimit.FieldError{Field: "key", Detail: "must be 1 to " + strconv.Itoa(ratelimit.MaxKeyLen) + " bytes, is 0"}
		case c.Cost > most && !stored(c.Policy.Name):
			err = &ratelimit.FieldError{Field: "cost", Detail: "must be at most " + strconv.FormatInt(most, 10)}
		}
		var field *ratelimit.FieldError
		if errors.As(inCheck(i, err), &field) {
			fields = append(fields, strictjson.FieldError{Field: field.Field, Detail: field.Detail})
		}
	}
	return fields
}
