// Package grpclimit limits the calls of a gRPC server.
//
// A call goes ahead if all rules allow it, and spends either under all of them
// or under none. A denied call ends with RESOURCE_EXHAUSTED, and with details of
// google.rpc: a RetryInfo that says when to come back, and a QuotaFailure with
// the policies that denied it. Where nobody could decide and the failure mode
// denies, it is UNAVAILABLE with a RetryInfo, and INVALID_ARGUMENT where a call
// has nothing to count it under.
//
// A stream counts once, when it begins; with Config.Messages each message that
// it receives counts too. Places of a concurrency policy are held until the call
// is over.
package grpclimit

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/peerlimit/peerlimit/ratelimit"
)

// Rule ties a policy to the key that calls count under, and to what they cost.
type Rule struct {
	Policy ratelimit.Policy
	Key    KeyFunc
	// Cost of a call, or of a message of a stream, in permits. message is the
	// request, nil for a stream that begins. nil: 1.
	Cost func(ctx context.Context, fullMethod string, message any) int64
}

// By returns the rule that counts calls under key, at one permit each.
func By(policy ratelimit.Policy, key KeyFunc) Rule { return Rule{Policy: policy, Key: key} }

// Config says how calls are limited. Only Limiter is required.
type Config struct {
	Limiter *ratelimit.Limiter
	Rules   []Rule
	// Skip lets calls of a method ("/package.Service/Method") pass uncounted.
	// nil: none. Health checks are the usual ones.
	Skip func(fullMethod string) bool
	// Messages counts each message that a stream receives too, except under
	// concurrency policies. The stream ends with the first one that is denied.
	Messages bool
	// Trusted finds out where calls come from, for the cap on new keys; see
	// ratelimit.Config.NewKeysPerMinute.
	Trusted ratelimit.Trusted
}

// limits is a Config made ready.
type limits struct {
	Config
	source func(ctx context.Context) ratelimit.Check // a Check with its Source
	rates  []Rule                                    // those that messages count under
}

// newLimits panics if a policy or Trusted is not valid, or a rule has no key.
func newLimits(cfg Config) *limits {
	if cfg.Limiter == nil {
		panic("grpclimit: Config.Limiter is nil")
	}
	l := &limits{Config: cfg}
	l.Rules = append([]Rule(nil), cfg.Rules...)
	for _, rule := range l.Rules {
		if err := rule.Policy.Validate(); err != nil {
			panic("grpclimit: " + err.Error())
		}
		if rule.Key == nil {
			panic("grpclimit: policy " + rule.Policy.Name + " has no key")
		}
		if rule.Policy.Algorithm != ratelimit.Concurrency {
			l.rates = append(l.rates, rule)
		}
	}
	addr := ratelimit.ClientAddr(cfg.Trusted)
	l.source = func(ctx context.Context) (c ratelimit.Check) {
		if a, err := addr(request(ctx, cfg.Trusted.Header)); err == nil {
			c.Source = a
		}
		return c
	}
	return l
}

// Unary returns the interceptor for calls of one request and one answer. It
// panics if a policy is not valid.
func Unary(cfg Config) grpc.UnaryServerInterceptor {
	l := newLimits(cfg)
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if l.Skip != nil && l.Skip(info.FullMethod) {
			return next(ctx, req)
		}
		admission, err := l.admit(ctx, l.Rules, info.FullMethod, req)
		if err != nil {
			return nil, err
		}
		defer admission.Release(ctx)
		return next(ctx, req)
	}
}

// Stream returns the interceptor for streams. It panics if a policy is not
// valid.
func Stream(cfg Config) grpc.StreamServerInterceptor {
	l := newLimits(cfg)
	return func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if l.Skip != nil && l.Skip(info.FullMethod) {
			return next(srv, s)
		}
		ctx := s.Context()
		admission, err := l.admit(ctx, l.Rules, info.FullMethod, nil)
		if err != nil {
			return err
		}
		defer admission.Release(ctx)
		if l.Messages {
			s = &countedStream{s, l, info.FullMethod}
		}
		return next(srv, s)
	}
}

// countedStream counts the messages that it receives.
type countedStream struct {
	grpc.ServerStream
	limits *limits
	method string
}

func (s *countedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	_, err := s.limits.admit(s.Context(), s.limits.rates, s.method, m)
	return err
}

// admit returns an admission, or the status that a call is refused with.
func (l *limits) admit(ctx context.Context, rules []Rule, method string, message any) (*ratelimit.Admission, error) {
	checks := make([]ratelimit.Check, 0, len(rules))
	from := l.source(ctx)
	for i := range rules {
		rule := &rules[i]
		key, err := rule.Key(ctx, method)
		if errors.Is(err, ratelimit.ErrSkip) {
			continue
		}
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, "the call lacks what it is rate-limited by")
		}
		check := from
		check.Policy, check.Key, check.Cost = rule.Policy, key, 1
		if rule.Cost != nil {
			check.Cost = rule.Cost(ctx, method, message)
		}
		checks = append(checks, check)
	}
	admission, err := l.Limiter.Admit(ctx, checks...)
	if err != nil {
		return nil, refusal(ctx, err)
	}
	if !admission.Allowed {
		return nil, denial(admission)
	}
	return admission, nil
}

// refusal is the status of a call that could not be checked.
func refusal(ctx context.Context, err error) error {
	var field *ratelimit.FieldError
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case errors.As(err, &field):
		return status.Error(codes.InvalidArgument, "the call cannot be rate-limited by what it sends")
	}
	return status.Error(codes.Unavailable, "the call could not be checked against its rate limits")
}

// denial is the status of a denied call.
func denial(a *ratelimit.Admission) error {
	var wait time.Duration
	quota := new(errdetails.QuotaFailure)
	for i := range a.Decisions {
		d, p := &a.Decisions[i], &a.Policies[i]
		if d.Allowed {
			continue
		}
		wait = max(wait, d.RetryAfter)
		quota.Violations = append(quota.Violations, &errdetails.QuotaFailure_Violation{
			Subject:     "policy:" + d.Policy,
			Description: describe(p),
			QuotaId:     d.Policy,
			QuotaValue:  p.Limit,
		})
	}
	if a.Unavailable {
		return detailed(codes.Unavailable, "nobody could decide on the call's rate limits", retry(wait))
	}
	return detailed(codes.ResourceExhausted, "rate limit exceeded", retry(wait), quota)
}

func describe(p *ratelimit.Policy) string {
	switch {
	case p.Algorithm == ratelimit.Concurrency:
		return "calls in flight"
	case p.Align != ratelimit.Unaligned:
		return "calls a " + p.Align.String()
	}
	return "calls in " + p.Period.String()
}

func retry(wait time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)}
}

func detailed(code codes.Code, msg string, details ...protoadapt.MessageV1) error {
	st := status.New(code, msg)
	if with, err := st.WithDetails(details...); err == nil {
		st = with
	}
	return st.Err()
}
