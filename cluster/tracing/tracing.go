// Package tracing makes OpenTelemetry spans of decisions and of calls between
// members.
//
//	node, err := cluster.Start(ctx, cluster.Config{…, Calls: tracing.Calls(nil)})
//	limits, err := ratelimit.New(ratelimit.Config{Cluster: node, Observer: tracing.Decisions(nil)})
//
// A span is the child of the one in the caller's context, and begins and ends
// when what it is of did. Where that context has no span being recorded nothing
// is made and a decision costs some nanoseconds: what is traced is requests, not
// every decision for its own sake.
//
// No span has a key, a secret or a payload: a policy's name, a member's name and
// the name of a handler are all the text there is, and of errors only the kind
// that is safe to show. Trace context does not travel to other members: a call's
// span covers the time of the other member, which makes no span of its own.
package tracing

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// scope is the name of the instrumentation: this package's path.
const scope = "github.com/peerlimit/peerlimit/cluster/tracing"

// Names of spans.
const (
	DecisionSpan  = "peerlimit.decision"
	CallSpan      = "peerlimit.call"
	BroadcastSpan = "peerlimit.broadcast"
)

// Attributes of spans.
const (
	PolicyKey    = attribute.Key("peerlimit.policy")    // string
	OutcomeKey   = attribute.Key("peerlimit.outcome")   // string: allowed, denied, …
	ReasonKey    = attribute.Key("peerlimit.reason")    // string; where there is one
	CostKey      = attribute.Key("peerlimit.cost")      // int64, permits
	LimitKey     = attribute.Key("peerlimit.limit")     // int64, permits
	RemainingKey = attribute.Key("peerlimit.remaining") // int64, permits
	KindKey      = attribute.Key("peerlimit.call.kind") // string
	MemberKey    = attribute.Key("peerlimit.member")    // string: who was called
	MembersKey   = attribute.Key("peerlimit.members")   // int: who should hear a broadcast
	ReachedKey   = attribute.Key("peerlimit.reached")   // int: who did
)

type observer struct{ tracer trace.Tracer }

func newObserver(provider trace.TracerProvider) observer {
	if provider == nil {
		provider = otel.GetTracerProvider()
	}
	return observer{provider.Tracer(scope)}
}

// Decisions returns an observer that makes a span of each decision. A denial is
// no error; a degraded decision is. A nil provider is the global one.
func Decisions(provider trace.TracerProvider) ratelimit.Observer {
	return decisions{newObserver(provider)}
}

// Calls returns an observer that makes a span of each call to other members and
// each broadcast. One that fails, or that does not reach all, is an error. A nil
// provider is the global one.
func Calls(provider trace.TracerProvider) cluster.CallObserver {
	return calls{newObserver(provider)}
}

type decisions struct{ observer }

// Decided implements ratelimit.Observer.
func (d decisions) Decided(ctx context.Context, o ratelimit.Observation) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return
	}
	_, span := d.tracer.Start(ctx, DecisionSpan, trace.WithTimestamp(o.Start), trace.WithAttributes(
		PolicyKey.String(o.Decision.Policy), OutcomeKey.String(string(o.Outcome)),
		CostKey.Int64(o.Cost), LimitKey.Int64(o.Decision.Limit), RemainingKey.Int64(o.Decision.Remaining),
	))
	if o.Decision.Reason != "" {
		span.SetAttributes(ReasonKey.String(o.Decision.Reason))
	}
	if o.Decision.Degraded {
		span.SetStatus(codes.Error, "nobody who may decide answered")
	}
	span.End(trace.WithTimestamp(o.Start.Add(o.Took)))
}

type calls struct{ observer }

// Called implements cluster.CallObserver.
func (c calls) Called(ctx context.Context, o cluster.CallObservation) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return
	}
	name, about, problem := CallSpan, []attribute.KeyValue{KindKey.String(o.Kind)}, kindOf(o.Err)
	if o.To != "" {
		about = append(about, MemberKey.String(o.To))
	} else {
		name = BroadcastSpan
		about = append(about, MembersKey.Int(o.Receipt.Members), ReachedKey.Int(o.Receipt.Reached))
		if !o.Receipt.Complete() {
			problem = "not all members were reached"
		}
	}
	_, span := c.tracer.Start(ctx, name, trace.WithTimestamp(o.Start),
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(about...))
	if problem != "" {
		span.SetStatus(codes.Error, problem)
	}
	span.End(trace.WithTimestamp(o.Start.Add(o.Took)))
}

// kindOf says what kind of error it is. The text of one that comes from a
// handler may have anything in it, and stays out.
func kindOf(err error) string {
	if err == nil {
		return ""
	}
	for _, kind := range []error{
		context.Canceled, context.DeadlineExceeded,
		cluster.ErrBusy, cluster.ErrClosed, cluster.ErrUnknownMember, cluster.ErrGone, cluster.ErrUnreachable,
		cluster.ErrLost, cluster.ErrBreakerOpen, cluster.ErrUnknownKind, cluster.ErrTooLarge,
	} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "the handler returned an error"
}
