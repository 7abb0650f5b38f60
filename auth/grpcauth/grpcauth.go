// Package grpcauth verifies the API keys of gRPC calls.
//
// A key is taken from the metadata "authorization" (Bearer KEY) or "x-api-key". Calls without a valid one end with
// UNAUTHENTICATED, those that lack a scope with PERMISSION_DENIED, those of a client with too many failures with
// RESOURCE_EXHAUSTED, and while nobody can tell with UNAVAILABLE; the last two say in a RetryInfo when to come back.
// Handlers find the principal with auth.FromContext.
//
// A stream is verified when it begins, and again before it receives a message when that was longer ago than
// Config.RecheckStreams: a revoked key does not live on in an open stream.
package grpcauth

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit/auth"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Config says how calls are verified. Only Keys is required.
type Config struct {
	// Keys verifies.
	Keys *auth.Authenticator
	// Public reports whether a method ("/package.Service/Method") needs no key; nil: none does not. Health checks
	// and reflection are the usual ones.
	Public func(fullMethod string) bool
	// Scopes returns what a method asks for; nil: nothing beyond a valid key.
	Scopes func(fullMethod string) []string
	// Client names the client that pays for failures; nil: the address of the connection, IPv6 by its /64.
	Client func(ctx context.Context) string
	// RecheckStreams is how old a stream's verification may be when it receives a message; default 1 s. A negative
	// one switches it off.
	RecheckStreams time.Duration
}

func (c Config) withDefaults() Config {
	if c.Public == nil {
		c.Public = func(string) bool { return false }
	}
	if c.Scopes == nil {
		c.Scopes = func(string) []string { return nil }
	}
	if c.Client == nil {
		c.Client = remoteClient
	}
	if c.RecheckStreams == 0 {
		c.RecheckStreams = time.Second
	}
	return c
}

// Unary returns the interceptor for calls of one request and one answer.
func Unary(cfg Config) grpc.UnaryServerInterceptor {
	cfg = cfg.withDefaults()
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if cfg.Public(info.FullMethod) {
			return next(ctx, req)
		}
		p, err := cfg.verify(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return next(auth.NewContext(ctx, p), req)
	}
}

// Stream returns the interceptor for streams.
func Stream(cfg Config) grpc.StreamServerInterceptor {
	cfg = cfg.withDefaults()
	return func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if cfg.Public(info.FullMethod) {
			return next(srv, s)
		}
		p, err := cfg.verify(s.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		return next(srv, &stream{
			ServerStream: s, cfg: &cfg, method: info.FullMethod, verified: time.Now(),
			ctx: auth.NewContext(s.Context(), p),
		})
	}
}

// stream is a verified stream. gRPC allows one goroutine at a time in RecvMsg, so verified needs no lock.
type stream struct {
	grpc.ServerStream
	cfg      *Config
	method   string
	ctx      context.Context //nolint:containedctx // it is what Context returns
	verified time.Time
}

// Context has the principal as it was when the stream began.
func (s *stream) Context() context.Context { return s.ctx }

// RecvMsg receives a message, of a key that is still valid.
func (s *stream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	// After the wait for the message, which may have been long.
	if s.cfg.RecheckStreams < 0 || time.Since(s.verified) < s.cfg.RecheckStreams {
		return nil
	}
	if _, err := s.cfg.verify(s.ServerStream.Context(), s.method); err != nil {
		return err
	}
	s.verified = time.Now()
	return nil
}

var errAmbiguous = status.Error(codes.Unauthenticated, "the call has to carry exactly one API key")

// key finds the key in a call's metadata; "" where there is none.
func key(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	// The metadata are HTTP/2 headers, and read by the same rules.
	h := http.Header{}
	for from, to := range map[string]string{"authorization": "Authorization", "x-api-key": "X-Api-Key"} {
		if values := md.Get(from); len(values) > 0 {
			h[to] = values
		}
	}
	k, err := extract(&http.Request{Header: h})
	if err != nil {
		return "", errAmbiguous
	}
	return k, nil
}

var extract = auth.AnyOf(auth.Bearer, auth.Header("X-API-Key"))

// verify returns the principal, or a status error.
func (c *Config) verify(ctx context.Context, method string) (*auth.Principal, error) {
	k, err := key(ctx)
	if err != nil {
		return nil, err
	}
	if k == "" {
		return nil, status.Error(codes.Unauthenticated, "an API key is required")
	}
	r, err := c.Keys.Verify(auth.WithClient(ctx, c.Client(ctx)), k)
	switch r.Verdict {
	case auth.Valid:
	case auth.Malformed:
		return nil, status.Error(codes.Unauthenticated, "the API key is malformed")
	case auth.NotFound:
		return nil, status.Error(codes.Unauthenticated, "the API key is not known")
	case auth.Disabled:
		return nil, status.Error(codes.Unauthenticated, "the API key is disabled")
	case auth.Expired:
		return nil, status.Error(codes.Unauthenticated, "the API key has expired")
	default:
		if t, ok := errors.AsType[*auth.ThrottledError](err); ok {
			return nil, retry(codes.ResourceExhausted, "too many failed attempts from this client", t.RetryAfter)
		}
		return nil, retry(codes.Unavailable, "API keys can't be verified now", time.Second)
	}
	if scopes := c.Scopes(method); !r.Principal.Has(scopes...) {
		return nil, status.Errorf(codes.PermissionDenied, "the API key lacks a scope of: %s", strings.Join(scopes, " "))
	}
	return r.Principal, nil
}

func retry(code codes.Code, message string, after time.Duration) error {
	s := status.New(code, message)
	if detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)}); err == nil {
		s = detailed
	}
	return s.Err()
}

func remoteClient(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	addr := p.Addr.String()
	if _, ok := p.Addr.(*net.TCPAddr); !ok {
		return addr
	}
	return auth.RemoteClient(&http.Request{RemoteAddr: addr})
}
