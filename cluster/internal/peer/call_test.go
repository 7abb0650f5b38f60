package peer

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestCallAnswers(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"plain":  nil,
		"secret": func(c *Config) { c.Secrets = [][]byte{[]byte("a secret of the test")} },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := start(t, 1, change), start(t, 2, change)
			b.Handle("greet", func(_ context.Context, from Boot, p []byte) ([]byte, error) {
				return []byte("hello " + string(p) + " from " + from.String()), nil
			})
			b.Handle("fail", func(context.Context, Boot, []byte) ([]byte, error) { return nil, errors.New("no") })
			introduce(a, b)
			got, err := a.Call(ctxFor(t, 5*time.Second), 2, "greet", []byte("world"))
			if err != nil || string(got) != "hello world from 0000000000000001" {
				t.Fatalf("got %q, %v", got, err)
			}
			var remote *RemoteError
			if _, err := a.Call(ctxFor(t, 5*time.Second), 2, "fail", nil); !errors.As(err, &remote) || remote.Text != "no" {
				t.Fatalf("got %v", err)
			}
			if _, err := a.Call(ctxFor(t, 5*time.Second), 2, "nothing", nil); !errors.Is(err, ErrUnknownKind) {
				t.Fatalf("got %v", err)
			}
			if _, err := a.Call(ctxFor(t, 5*time.Second), 3, "greet", nil); !errors.Is(err, ErrUnknownPeer) {
				t.Fatalf("got %v", err)
			}
		})
	}
}
