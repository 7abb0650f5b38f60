package grpclimit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/peerlimit/peerlimit/ratelimit"
)

// KeyFunc returns the key that a call counts under. An error refuses the call;
// ratelimit.ErrSkip lets it pass this rule uncounted.
type KeyFunc = func(ctx context.Context, fullMethod string) (string, error)

// ErrNoKey is wrapped by the KeyFuncs of this package where a call has nothing
// to count it under.
var ErrNoKey = errors.New("grpclimit: call has no key")

// ClientIP counts calls under the client's address; see ratelimit.ClientIP,
// whose words on headers hold for metadata. It panics if trusted is not valid.
func ClientIP(trusted ratelimit.Trusted) KeyFunc {
	key := ratelimit.ClientIP(trusted)
	return func(ctx context.Context, _ string) (string, error) { return key(request(ctx, trusted.Header)) }
}

// request makes of a call what ratelimit looks for addresses in.
func request(ctx context.Context, header string) *http.Request {
	r := &http.Request{Header: make(http.Header)}
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		r.RemoteAddr = p.Addr.String()
	}
	if header != "" {
		if values := metadata.ValueFromIncomingContext(ctx, strings.ToLower(header)); len(values) > 0 {
			r.Header[http.CanonicalHeaderKey(header)] = values
		}
	}
	return r
}

// Metadata counts calls under a value of the metadata that the client sends: its
// choice, unless something in front has checked it. Long ones are hashed.
func Metadata(name string) KeyFunc {
	name = strings.ToLower(name)
	return func(ctx context.Context, _ string) (string, error) {
		values := metadata.ValueFromIncomingContext(ctx, name)
		if len(values) != 1 || values[0] == "" {
			return "", fmt.Errorf("%w: metadata %s", ErrNoKey, name)
		}
		return ratelimit.Hashed(values[0]), nil
	}
}

// Method counts calls under their method, "/package.Service/Method". An
// interceptor sees only methods that exist.
func Method() KeyFunc {
	return func(_ context.Context, fullMethod string) (string, error) { return ratelimit.Hashed(fullMethod), nil }
}

// Everyone counts all calls under one key.
func Everyone() KeyFunc {
	return func(context.Context, string) (string, error) { return "everyone", nil }
}

// Join counts calls under all of the keys together. No two different lists of
// keys make the same one.
func Join(keys ...KeyFunc) KeyFunc {
	return func(ctx context.Context, fullMethod string) (string, error) {
		var b []byte
		for _, key := range keys {
			part, err := key(ctx, fullMethod)
			if err != nil {
				return "", err
			}
			b = strconv.AppendInt(b, int64(len(part)), 10)
			b = append(b, ':')
			b = append(b, part...)
		}
		if len(b) > ratelimit.MaxKeyLen {
			return ratelimit.Hashed(string(b)), nil
		}
		return string(b), nil
	}
}
