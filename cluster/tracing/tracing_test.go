package tracing_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
	"github.com/peerlimit/peerlimit/cluster/tracing"
	"github.com/peerlimit/peerlimit/ratelimit"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// record returns a provider and what it records.
func record(t *testing.T) (*sdk.TracerProvider, *tracetest.SpanRecorder) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
	t.Cleanup(func() { assert.NoError(t, provider.Shutdown(context.Background())) })
	return provider, recorder
}

// request begins the span of a request.
func request(t *testing.T, provider *sdk.TracerProvider) (context.Context, trace.SpanContext) {
	t.Helper()
	ctx, span := provider.Tracer("test").Start(context.Background(), "request")
	t.Cleanup(func() { span.End() })
	return ctx, span.SpanContext()
}

func attributesOf(s sdk.ReadOnlySpan) map[attribute.Key]any {
	out := map[attribute.Key]any{}
	for _, a := range s.Attributes() {
		out[a.Key] = a.Value.AsInterface()
	}
	return out
}

func TestDecisionsAreSpans(t *testing.T) {
	provider, recorder := record(t)
	limits, err := ratelimit.New(ratelimit.Config{Observer: tracing.Decisions(provider)})
	require.NoError(t, err)
	defer limits.Close()
	ctx, parent := request(t, provider)
	policy := ratelimit.PerMinute("calls", 10)
	before := time.Now()
	for _, cost := range []int64{7, 4} {
		_, err := limits.AllowN(ctx, policy, "a-key-that-is-nobodys-business", cost)
		require.NoError(t, err)
	}
	_, err = limits.Allow(context.Background(), policy, "not part of a request")
	require.NoError(t, err)

	spans := recorder.Ended()
	require.Len(t, spans, 2)
	for i, want := range []map[attribute.Key]any{
		{tracing.PolicyKey: "calls", tracing.OutcomeKey: "allowed", tracing.CostKey: int64(7), tracing.LimitKey: int64(10), tracing.RemainingKey: int64(3)},
		{tracing.PolicyKey: "calls", tracing.OutcomeKey: "denied", tracing.CostKey: int64(4), tracing.LimitKey: int64(10), tracing.RemainingKey: int64(3)},
	} {
		s := spans[i]
		assert.Equal(t, tracing.DecisionSpan, s.Name())
		assert.Equal(t, parent.SpanID(), s.Parent().SpanID())
		assert.Equal(t, want, attributesOf(s))
		assert.Equal(t, codes.Unset, s.Status().Code, "a denial is no error")
		assert.False(t, s.StartTime().Before(before))
		assert.False(t, s.EndTime().Before(s.StartTime()))
		assert.False(t, s.EndTime().After(time.Now()))
	}
}

func TestADegradedDecisionIsAnError(t *testing.T) {
	provider, recorder := record(t)
	ctx, _ := request(t, provider)
	start := time.Now().Add(-time.Second)
	tracing.Decisions(provider).Decided(ctx, ratelimit.Observation{
		Decision: ratelimit.Decision{Policy: "p", Degraded: true, Reason: ratelimit.ReasonUnavailable},
		Outcome:  ratelimit.OutcomeDegradedDenied, Start: start, Took: 250 * time.Millisecond,
	})
	s := recorder.Ended()[0]
	assert.Equal(t, codes.Error, s.Status().Code)
	assert.Equal(t, string(ratelimit.ReasonUnavailable), attributesOf(s)[tracing.ReasonKey])
	assert.Equal(t, 250*time.Millisecond, s.EndTime().Sub(s.StartTime()))
	assert.True(t, s.StartTime().Equal(start))
}

func TestCallsAreSpans(t *testing.T) {
	provider, recorder := record(t)
	c := clustertest.Start(t, 2, func(_ int, cfg *cluster.Config) { cfg.Calls = tracing.Calls(provider) })
	here, there := c.Nodes[0], c.Nodes[1]
	for _, n := range c.Nodes {
		n.Handle("hello", func(_ context.Context, _ cluster.Member, b []byte) ([]byte, error) { return b, nil })
	}
	there.Handle("refuse", func(context.Context, cluster.Member, []byte) ([]byte, error) {
		return nil, errors.New("a text with a secret in it")
	})
	ctx, parent := request(t, provider)
	_, err := here.Call(ctx, there.Self(), "hello", []byte("payload"))
	require.NoError(t, err)
	_, err = here.Call(ctx, there.Self(), "refuse", nil)
	require.Error(t, err)
	_, err = here.Call(ctx, there.Self(), "nothing", nil)
	require.ErrorIs(t, err, cluster.ErrUnknownKind)
	require.True(t, here.Broadcast(ctx, "hello", nil).Complete())
	require.False(t, here.Broadcast(ctx, "refuse", nil).Complete())
	_, err = here.Call(context.Background(), there.Self(), "hello", nil)
	require.NoError(t, err)

	spans := recorder.Ended()
	require.Len(t, spans, 5)
	for i, want := range []struct {
		name, problem string
		attributes    map[attribute.Key]any
	}{
		{tracing.CallSpan, "", map[attribute.Key]any{tracing.KindKey: "hello", tracing.MemberKey: "node-1"}},
		{tracing.CallSpan, "the handler returned an error", map[attribute.Key]any{tracing.KindKey: "refuse", tracing.MemberKey: "node-1"}},
		{tracing.CallSpan, cluster.ErrUnknownKind.Error(), map[attribute.Key]any{tracing.KindKey: "nothing", tracing.MemberKey: "node-1"}},
		{tracing.BroadcastSpan, "", map[attribute.Key]any{tracing.KindKey: "hello", tracing.MembersKey: int64(2), tracing.ReachedKey: int64(2)}},
		{tracing.BroadcastSpan, "not all members were reached", map[attribute.Key]any{tracing.KindKey: "refuse", tracing.MembersKey: int64(2), tracing.ReachedKey: int64(0)}},
	} {
		s := spans[i]
		assert.Equal(t, want.name, s.Name())
		assert.Equal(t, want.attributes, attributesOf(s))
		assert.Equal(t, want.problem, s.Status().Description)
		assert.Equal(t, want.problem != "", s.Status().Code == codes.Error)
		assert.Equal(t, parent.SpanID(), s.Parent().SpanID())
		assert.Equal(t, trace.SpanKindClient, s.SpanKind())
		assert.Empty(t, s.Events())
	}
}
