package grpcauth_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/grpcauth"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// checks is a health server that notes who asked.
type checks struct {
	healthpb.UnimplementedHealthServer
	principal chan *auth.Principal
}

func (c *checks) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	p, _ := auth.FromContext(ctx)
	c.principal <- p
	return &healthpb.HealthCheckResponse{}, nil
}

// echo is a stream in both directions.
var echo = grpc.ServiceDesc{
	ServiceName: "test.Echo", HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{
		StreamName: "Echo", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, s grpc.ServerStream) error {
			if _, ok := auth.FromContext(s.Context()); !ok {
				return errors.New("no principal")
			}
			for {
				var m healthpb.HealthCheckRequest
				if err := s.RecvMsg(&m); err != nil {
					if errors.Is(err, io.EOF) {
						return nil
					}
					return err
				}
				if err := s.SendMsg(&m); err != nil {
					return err
				}
			}
		},
	}},
}

type downStore struct {
	*auth.Memory
	down bool
}

func (s *downStore) Lookup(ctx context.Context, d auth.Digest) (auth.Key, error) {
	if s.down {
		return auth.Key{}, errors.New("down")
	}
	return s.Memory.Lookup(ctx, d)
}

type fixture struct {
	keys   *auth.Authenticator
	store  *downStore
	checks *checks
	conn   *grpc.ClientConn
	failed map[string]int
	retry  time.Duration
}

func start(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{store: &downStore{Memory: auth.NewMemory()}, checks: &checks{principal: make(chan *auth.Principal, 1)}, failed: map[string]int{}}
	var err error
	f.keys, err = auth.New(auth.Config{
		Store: f.store,
		FailureLimit: func(_ context.Context, client string, n int) time.Duration {
			f.failed[client] += n
			return f.retry
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.keys.Close() })
	cfg := grpcauth.Config{
		Keys:   f.keys,
		Public: func(method string) bool { return method == "/grpc.health.v1.Health/List" },
		Scopes: func(method string) []string {
			if strings.HasSuffix(method, "/Check") {
				return []string{"health:read"}
			}
			return nil
		},
		RecheckStreams: 50 * time.Millisecond,
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(grpcauth.Unary(cfg)), grpc.StreamInterceptor(grpcauth.Stream(cfg)))
	healthpb.RegisterHealthServer(server, f.checks)
	server.RegisterService(&echo, nil)
	listener := bufconn.Listen(1 << 16)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	f.conn, err = grpc.NewClient("passthrough:test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.conn.Close()
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

// List is the one public method.
func (*checks) List(context.Context, *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	return &healthpb.HealthListResponse{}, nil
}

func (f *fixture) create(t *testing.T, scopes ...string) (auth.Key, string) {
	t.Helper()
	issued, err := f.keys.Create(t.Context(), auth.Spec{Project: "p", Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	return issued.Key, issued.Secret.Reveal()
}

func TestUnary(t *testing.T) { synctest.Test(t, unary) }

func unary(t *testing.T) {
	f := start(t)
	k, key := f.create(t, "health:read")
	_, noScope := f.create(t)
	disabled, disabledKey := f.create(t)
	if _, err := f.keys.Disable(t.Context(), disabled.ID); err != nil {
		t.Fatal(err)
	}
	check := func(pairs ...string) error {
		ctx := metadata.AppendToOutgoingContext(t.Context(), pairs...)
		_, err := healthpb.NewHealthClient(f.conn).Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	}
	for _, pairs := range [][]string{{"authorization", "Bearer " + key}, {"x-api-key", key}} {
		if err := check(pairs...); err != nil {
			t.Fatal(err)
		}
		if p := <-f.checks.principal; p == nil || p.ID != k.ID {
			t.Errorf("principal %v, want %s", p, k.ID)
		}
	}
	for _, test := range []struct {
		name  string
		pairs []string
		code  codes.Code
	}{
		{"none", nil, codes.Unauthenticated},
		{"two", []string{"authorization", "Bearer " + key, "x-api-key", key}, codes.Unauthenticated},
		{"twice", []string{"x-api-key", key, "x-api-key", key}, codes.Unauthenticated},
		{"malformed", []string{"x-api-key", key + "x"}, codes.Unauthenticated},
		{"unknown", []string{"x-api-key", "somebody-elses"}, codes.Unauthenticated},
		{"disabled", []string{"x-api-key", disabledKey}, codes.Unauthenticated},
		{"scope", []string{"x-api-key", noScope}, codes.PermissionDenied},
	} {
		err := check(test.pairs...)
		if status.Code(err) != test.code || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v, want %v", test.name, err, test.code)
		}
	}
	if f.failed["bufconn"] != 3 || len(f.failed) != 1 {
		t.Errorf("failures %v, want 3 of the connection", f.failed)
	}
	if _, err := healthpb.NewHealthClient(f.conn).List(t.Context(), &healthpb.HealthListRequest{}); err != nil {
		t.Errorf("public method: %v", err)
	}

	f.store.down = true
	wantRetry(t, check("x-api-key", "another-unknown"), codes.Unavailable, time.Second)
	f.retry = 1500 * time.Millisecond
	wantRetry(t, check("x-api-key", "another-unknown"), codes.ResourceExhausted, f.retry)
}

func wantRetry(t *testing.T, err error, code codes.Code, after time.Duration) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Fatalf("%v, want %v", err, code)
	}
	for _, d := range s.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok && r.GetRetryDelay().AsDuration() == after {
			return
		}
	}
	t.Errorf("%v: details %v, want a RetryInfo of %v", err, s.Details(), after)
}

func TestStream(t *testing.T) { synctest.Test(t, streams) }

func streams(t *testing.T) {
	f := start(t)
	k, key := f.create(t)
	open := func(ctx context.Context) grpc.ClientStream {
		s, err := f.conn.NewStream(ctx, &echo.Streams[0], "/test.Echo/Echo")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	exchange := func(s grpc.ClientStream) error {
		m := &healthpb.HealthCheckRequest{Service: "x"}
		_ = s.SendMsg(m) // what is wrong shows when receiving
		return s.RecvMsg(m)
	}
	if err := exchange(open(t.Context())); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a key: %v", err)
	}
	s := open(metadata.AppendToOutgoingContext(t.Context(), "x-api-key", key))
	for range 3 {
		if err := exchange(s); err != nil {
			t.Fatal(err)
		}
		time.Sleep(60 * time.Millisecond) // longer than RecheckStreams: the next message is verified again
	}
	if _, err := f.keys.Delete(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	time.Sleep(60 * time.Millisecond)
	if err := exchange(s); status.Code(err) != codes.Unauthenticated {
		t.Errorf("after the key was deleted: %v", err)
	}
}
