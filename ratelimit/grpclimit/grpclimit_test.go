package grpclimit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/peerlimit/peerlimit/ratelimit"
	"github.com/peerlimit/peerlimit/ratelimit/grpclimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const echo, chat = "/test.Echo/Echo", "/test.Echo/Chat"

// echoServer answers with what it is sent, once or as a stream.
var echoServer = grpc.ServiceDesc{
	ServiceName: "test.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(srv any, ctx context.Context, dec func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
			req := new(wrapperspb.StringValue)
			if err := dec(req); err != nil {
				return nil, err
			}
			return in(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: echo}, func(_ context.Context, req any) (any, error) { return req, nil })
		},
	}},
	Streams: []grpc.StreamDesc{{
		StreamName: "Chat", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, s grpc.ServerStream) error {
			for {
				m := new(wrapperspb.StringValue)
				if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(m); err != nil {
					return err
				}
			}
		},
	}},
}

func newLimiter(t testing.TB, cfg ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	l, err := ratelimit.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t testing.TB, cfg grpclimit.Config) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.UnaryInterceptor(grpclimit.Unary(cfg)), grpc.StreamInterceptor(grpclimit.Stream(cfg)))
	server.RegisterService(&echoServer, nil)
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///buf", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		<-done
	})
	return conn
}

func call(conn *grpc.ClientConn, kv ...string) error {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), kv...), 10*time.Second)
	defer cancel()
	return conn.Invoke(ctx, echo, wrapperspb.String("hi"), new(wrapperspb.StringValue))
}

func details(t *testing.T, err error) (retry time.Duration, violated []string) {
	t.Helper()
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.RetryInfo:
			retry = d.RetryDelay.AsDuration()
		case *errdetails.QuotaFailure:
			for _, v := range d.Violations {
				violated = append(violated, v.Subject)
			}
		}
	}
	return retry, violated
}

func TestUnary(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{})
	conn := dial(t, grpclimit.Config{Limiter: l, Rules: []grpclimit.Rule{
		grpclimit.By(ratelimit.PerHour("key", 2), grpclimit.Metadata("X-API-Key")),
		grpclimit.By(ratelimit.PerHour("method", 100), grpclimit.Join(grpclimit.Metadata("x-api-key"), grpclimit.Method())),
	}})
	for range 2 {
		if err := call(conn, "x-api-key", "a"); err != nil {
			t.Fatal(err)
		}
	}
	err := call(conn, "x-api-key", "a")
	retry, violated := details(t, err)
	if status.Code(err) != codes.ResourceExhausted || retry > 30*time.Minute || retry < 29*time.Minute || len(violated) != 1 || violated[0] != "policy:key" {
		t.Errorf("%v, %s, %v", err, retry, violated)
	}
	if err := call(conn, "x-api-key", "b"); err != nil {
		t.Errorf("another key: %v", err)
	}
	for _, kv := range [][]string{{}, {"x-api-key", "a", "x-api-key", "b"}} {
		if err := call(conn, kv...); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", kv, err)
		}
	}
	if d, _ := l.Status(context.Background(), ratelimit.PerHour("method", 100), "1:a15:/test.Echo/Echo"); d.Remaining != 98 {
		t.Errorf("the denied call was spent: %+v", d)
	}
}

func TestStream(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{})
	for _, messages := range []bool{false, true} {
		conn := dial(t, grpclimit.Config{Limiter: l, Messages: messages, Rules: []grpclimit.Rule{
			grpclimit.By(ratelimit.PerHour(fmt.Sprint("rate-", messages), 3), grpclimit.Everyone()),
			grpclimit.By(ratelimit.InFlight(fmt.Sprint("open-", messages), 1, time.Minute), grpclimit.Everyone()),
		}})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s, err := conn.NewStream(ctx, &echoServer.Streams[0], chat)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for range 5 {
			m := wrapperspb.String("x")
			if s.SendMsg(m) != nil {
				break
			}
			if err = s.RecvMsg(m); err != nil {
				break
			}
			got++
			if got == 1 {
				second, err := conn.NewStream(ctx, &echoServer.Streams[0], chat)
				if err == nil {
					err = second.RecvMsg(m)
				}
				if _, violated := details(t, err); status.Code(err) != codes.ResourceExhausted || violated[0] != fmt.Sprint("policy:open-", messages) {
					t.Errorf("two at once: %v", err)
				}
			}
		}
		if want := map[bool]int{false: 5, true: 2}[messages]; got != want {
			t.Errorf("messages counted %v: %d came through, want %d: %v", messages, got, want, err)
		}
		if messages && status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%v", err)
		}
		s.CloseSend()
		for err == nil {
			err = s.RecvMsg(new(wrapperspb.StringValue))
		}
		if d, _ := l.Status(ctx, ratelimit.InFlight(fmt.Sprint("open-", messages), 1, time.Minute), "everyone"); !d.Allowed {
			t.Errorf("the place is still taken: %+v", d)
		}
	}
}

func TestSkipCostAndErrors(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{})
	conn := dial(t, grpclimit.Config{Limiter: l, Rules: []grpclimit.Rule{{
		Policy: ratelimit.PerHour("bytes", 5),
		Key: func(ctx context.Context, _ string) (string, error) {
			if len(metadata.ValueFromIncomingContext(ctx, "skip")) > 0 {
				return "", ratelimit.ErrSkip
			}
			return "k", nil
		},
		Cost: func(_ context.Context, method string, message any) int64 {
			return int64(len(message.(*wrapperspb.StringValue).Value)) + int64(strings.Count(method, "x"))
		},
	}}})
	for range 2 { // 2 of 5 each
		if err := call(conn); err != nil {
			t.Fatal(err)
		}
	}
	if err := call(conn); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v", err)
	}
	if err := call(conn, "skip", "1"); err != nil {
		t.Errorf("%v", err)
	}
	ctx := context.Background()
	big := wrapperspb.String("more than the limit")
	if err := conn.Invoke(ctx, echo, big, new(wrapperspb.StringValue)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v", err)
	}
	skipped := dial(t, grpclimit.Config{Limiter: ratelimit.AlwaysDeny, Skip: func(m string) bool { return m == echo },
		Rules: []grpclimit.Rule{grpclimit.By(ratelimit.PerHour("p", 1), grpclimit.Everyone())}})
	if err := call(skipped); err != nil {
		t.Errorf("%v", err)
	}
	l.Close()
	if err := call(conn); status.Code(err) != codes.Unavailable {
		t.Errorf("closed: %v", err)
	}
}

func TestClientIP(t *testing.T) {
	trusted := ratelimit.Trusted{Header: "X-Forwarded-For", Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, c := range []struct {
		trusted   ratelimit.Trusted
		remote    string
		forwarded []string
		want      string
	}{
		{ratelimit.Trusted{}, "203.0.113.7:99", []string{"1.2.3.4"}, "203.0.113.7"},
		{trusted, "203.0.113.7:99", []string{"1.2.3.4"}, "203.0.113.7"},
		{trusted, "10.0.0.1:99", []string{"1.2.3.4, 203.0.113.7"}, "203.0.113.7"},
		{trusted, "10.0.0.1:99", []string{"1.2.3.4", "[2001:db8::1]:5"}, "2001:db8::/64"},
		{trusted, "10.0.0.1:99", []string{"unknown"}, ""},
		{trusted, "bufconn", nil, ""},
	} {
		ctx := metadata.NewIncomingContext(context.Background(), metadata.MD{"x-forwarded-for": c.forwarded})
		ctx = peer.NewContext(ctx, &peer.Peer{Addr: address(c.remote)})
		got, err := grpclimit.ClientIP(c.trusted)(ctx, echo)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s %q: %q, %v; want %q", c.remote, c.forwarded, got, err, c.want)
		}
	}
}

type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

func TestJoin(t *testing.T) {
	is := func(s string) grpclimit.KeyFunc {
		return func(context.Context, string) (string, error) { return s, nil }
	}
	a, _ := grpclimit.Join(is("a"), is("bc"))(context.Background(), echo)
	b, _ := grpclimit.Join(is("ab"), is("c"))(context.Background(), echo)
	long, _ := grpclimit.Join(is(strings.Repeat("x", 5000)))(context.Background(), echo)
	if a == b || len(long) > ratelimit.MaxKeyLen {
		t.Errorf("%q %q %d", a, b, len(long))
	}
	if _, err := grpclimit.Join(grpclimit.Metadata("x"))(context.Background(), echo); !errors.Is(err, grpclimit.ErrNoKey) {
		t.Errorf("%v", err)
	}
}

func TestPanicsOnWhatCannotWork(t *testing.T) {
	l := newLimiter(t, ratelimit.Config{})
	for name, cfg := range map[string]grpclimit.Config{
		"limiter": {},
		"policy":  {Limiter: l, Rules: []grpclimit.Rule{grpclimit.By(ratelimit.Policy{}, grpclimit.Everyone())}},
		"key":     {Limiter: l, Rules: []grpclimit.Rule{{Policy: ratelimit.PerHour("p", 1)}}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			grpclimit.Unary(cfg)
		}()
	}
}
