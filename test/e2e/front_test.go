package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/grpcauth"
	"github.com/peerlimit/peerlimit/ratelimit"
	"github.com/peerlimit/peerlimit/ratelimit/grpclimit"
)

// front is a server of a service that embeds the packages, as its clients see
// it. Everything it serves needs a key with the scope "read", and is limited by
// address and by key.
type front struct {
	name       string
	xRateLimit bool
	ask        func(key string) reply // "" is no key
}

// reply is an answer over HTTP, or over gRPC, which has no header here.
type reply struct {
	status int
	header http.Header
	body   []byte
	err    error
}

func (r reply) allowed() bool { return r.err == nil && (r.header == nil || r.status == http.StatusOK) }

func (r reply) String() string {
	if r.header == nil {
		return fmt.Sprint(r.err)
	}
	return fmt.Sprintf("%d %v %s", r.status, r.header, r.body)
}

var served = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if p, ok := auth.FromContext(r.Context()); !ok || p.Project != "e2e" {
		http.Error(w, "no principal", http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, "served")
})

// serveMux is a server of net/http alone.
func serveMux(t *testing.T, keys *auth.Authenticator, limits *ratelimit.Limiter) front {
	limited := limits.Handler(served, ratelimit.By(perIP, ratelimit.ClientIP(ratelimit.Trusted{})), ratelimit.By(perKey, auth.KeyID))
	mux := http.NewServeMux()
	mux.Handle("GET /items/{id}", keys.Handler(auth.RequireScope("read")(limited)))
	return front{name: "net/http", ask: serveHTTP(t, mux)}
}

// serveChi is a server with chi's router, and sends the old headers too.
func serveChi(t *testing.T, keys *auth.Authenticator, limits *ratelimit.Limiter) front {
	router := chi.NewRouter()
	router.Use(keys.Handler, auth.RequireScope("read"), ratelimit.Middleware{
		Limiter:    limits,
		Rules:      []ratelimit.Rule{ratelimit.By(perIP, ratelimit.ClientIP(ratelimit.Trusted{})), ratelimit.By(perKey, auth.KeyID)},
		XRateLimit: true,
	}.Wrap)
	router.Get("/items/{id}", served)
	return front{name: "chi", xRateLimit: true, ask: serveHTTP(t, router)}
}

// serveHTTP serves on loopback until the test ends.
func serveHTTP(t *testing.T, handler http.Handler) func(key string) reply {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	client := server.Client()
	client.Timeout = 30 * time.Second
	return func(key string) reply {
		request, err := http.NewRequest(http.MethodGet, server.URL+"/items/7", nil)
		if err != nil {
			return reply{err: err}
		}
		if key != "" {
			request.Header.Set("Authorization", "Bearer "+key)
		}
		return fetch(client, request)
	}
}

// fetch sends a request and reads the answer, which the sweep for secrets sees.
func fetch(client *http.Client, request *http.Request) reply {
	response, err := client.Do(request)
	if err != nil {
		return reply{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	secrets.search("an answer of "+request.URL.Path, body)
	return reply{status: response.StatusCode, header: response.Header, body: body, err: err}
}

// grpcFront is a gRPC server with the health service, which has a call of one
// answer and one of a stream.
type grpcFront struct{ health healthpb.HealthClient }

func serveGRPC(t *testing.T, keys *auth.Authenticator, limits *ratelimit.Limiter) grpcFront {
	t.Helper()
	verify := grpcauth.Config{Keys: keys, Scopes: func(string) []string { return []string{"read"} }}
	limit := grpclimit.Config{Limiter: limits, Rules: []grpclimit.Rule{
		grpclimit.By(perIP, grpclimit.ClientIP(ratelimit.Trusted{})),
		grpclimit.By(perKey, func(ctx context.Context, _ string) (string, error) {
			p, ok := auth.FromContext(ctx)
			if !ok {
				return "", auth.ErrNoPrincipal
			}
			return p.ID, nil
		}),
	}}
	return startGRPC(t, grpc.ChainUnaryInterceptor(grpcauth.Unary(verify), grpclimit.Unary(limit)),
		grpc.ChainStreamInterceptor(grpcauth.Stream(verify), grpclimit.Stream(limit)))
}

// startGRPC serves on loopback until the test ends.
func startGRPC(t *testing.T, options ...grpc.ServerOption) grpcFront {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(options...)
	healthpb.RegisterHealthServer(server, health.NewServer())
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, conn.Close())
		server.Stop()
		assert.NoError(t, <-done)
	})
	return grpcFront{healthpb.NewHealthClient(conn)}
}

func withKey(key string) (context.Context, context.CancelFunc) {
	ctx := context.Background()
	if key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
	}
	return context.WithTimeout(ctx, 30*time.Second)
}

func (f grpcFront) unary() front {
	return front{name: "gRPC", ask: func(key string) reply {
		ctx, cancel := withKey(key)
		defer cancel()
		_, err := f.health.Check(ctx, &healthpb.HealthCheckRequest{})
		return reply{err: err}
	}}
}

func (f grpcFront) stream() front {
	return front{name: "gRPC stream", ask: func(key string) reply {
		ctx, cancel := withKey(key)
		defer cancel()
		stream, err := f.health.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return reply{err: err}
	}}
}
