package peer

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func echoStream(c net.Conn) { _, _ = io.Copy(c, c) }

func TestStreams(t *testing.T) {
	for name, change := range map[string]func(*Config){"plain": nil, "secret": withSecrets("s")} {
		t.Run(name, func(t *testing.T) {
			a, b := start(t, 1, change), start(t, 2, change)
			b.HandleStream("echo", echoStream)
			introduce(a, b)
			s, err := a.DialStream(ctxFor(t, 5*time.Second), 2, "echo")
			if err != nil {
				t.Fatal(err)
			}
			sent := bytes.Repeat([]byte("stream"), 50_000)
			go func() { _, _ = s.Write(sent) }()
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%v", err)
			}
			if n := a.Stats().Streams + b.Stats().Streams; n != 2 {
				t.Errorf("%d ends of streams", n)
			}
			_ = s.Close()
			_ = s.Close()
			eventually(t, "both ends closed", func() bool { return a.Stats().Streams+b.Stats().Streams == 0 })

			if _, err := a.DialStream(ctxFor(t, 5*time.Second), 2, "nothing"); err == nil || !strings.Contains(err.Error(), "does not serve") {
				t.Errorf("a stream nobody serves: %v", err)
			}
			if _, err := a.DialStream(ctxFor(t, 5*time.Second), 3, "echo"); !errors.Is(err, ErrUnknownPeer) {
				t.Errorf("a stream to nobody: %v", err)
			}
			for _, service := range []string{"", strings.Repeat("x", 24)} {
				if _, err := a.DialStream(ctxFor(t, 5*time.Second), 2, service); err == nil {
					t.Errorf("service %q was taken", service)
				}
			}
		})
	}
}

func TestStreamsEndWithTheirPeerAndTransport(t *testing.T) {
	a, b := start(t, 1, nil), start(t, 2, nil)
	b.HandleStream("echo", echoStream)
	for _, c := range []struct {
		name string
		end  func()
	}{
		{"the peer is removed", func() { a.SetPeers(nil) }},
		{"the transport closes", func() { _ = a.Close() }},
	} {
		introduce(a, b)
		s, err := a.DialStream(ctxFor(t, 5*time.Second), 2, "echo")
		if err != nil {
			t.Fatal(err)
		}
		c.end()
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: the stream still reads", c.name)
		}
	}
	if _, err := a.DialStream(ctxFor(t, 5*time.Second), 2, "echo"); err == nil {
		t.Error("a closed transport dialed")
	}
}
