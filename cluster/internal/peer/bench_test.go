package peer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkEcho is a raw message of 80 bytes there and back, plain TCP on loopback, both ends in this process.
func BenchmarkEcho(b *testing.B) {
	for _, callers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchEcho(b, callers, nil) })
	}
}

// BenchmarkEchoTLS is the same with a secret.
func BenchmarkEchoTLS(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchEcho(b, callers, withSecrets("s")) })
	}
}

func benchEcho(b *testing.B, callers int, change func(*Config)) {
	waiting := make([]chan struct{}, callers)
	for i := range waiting {
		waiting[i] = make(chan struct{}, 1)
	}
	var server *Transport
	client := start(b, 1, func(c *Config) {
		c.Message = func(_ Boot, m Message) { waiting[m.ID] <- struct{}{} }
		if change != nil {
			change(c)
		}
	})
	ready := make(chan struct{})
	server = start(b, 2, func(c *Config) {
		c.Message = func(_ Boot, m Message) {
			<-ready
			if err := server.Reply(m.Via, m); err != nil {
				b.Error(err)
			}
		}
		if change != nil {
			change(c)
		}
	})
	close(ready)
	introduce(client, server)
	eventually(b, "connected", func() bool { return client.Connected(2, LaneOps) })

	before := client.Stats()
	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			payload := make([]byte, 48)
			for left.Add(-1) >= 0 {
				if err := client.Send(2, LaneOps, Message{Type: TypeUser, ID: uint64(i), Payload: payload}); err != nil {
					b.Error(err)
					return
				}
				<-waiting[i]
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	after := client.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
	b.ReportMetric(float64(after.FramesSent-before.FramesSent)/float64(after.Writes-before.Writes), "frames/write")
}

// BenchmarkCall is a Call that its handler answers at once.
func BenchmarkCall(b *testing.B) {
	client, server := start(b, 1, nil), start(b, 2, nil)
	server.Handle("echo", func(_ context.Context, _ Boot, p []byte) ([]byte, error) { return p, nil })
	introduce(client, server)
	payload := make([]byte, 48)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Call(context.Background(), 2, "echo", payload); err != nil {
			b.Fatal(err)
		}
	}
}
