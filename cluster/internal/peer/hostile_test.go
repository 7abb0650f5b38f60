package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// dialRaw connects like a stranger.
func dialRaw(t testing.TB, to *Transport) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", to.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func goodHello(from, to Boot) hello {
	return hello{versions: versionRange{1, 1}, cluster: clusterHash("test"), from: from, to: to, lane: LaneOps}
}

// greet connects and says a valid hello.
func greet(t testing.TB, to *Transport, from Boot) net.Conn {
	t.Helper()
	c := dialRaw(t, to)
	if _, err := c.Write(goodHello(from, to.cfg.Self).append(nil)); err != nil {
		t.Fatal(err)
	}
	head, payload, err := readOpening(c)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := parseWelcome(head, payload); err != nil || w.verdict != welcomed || w.version != 1 || w.boot != to.cfg.Self {
		t.Fatalf("%+v, %v", w, err)
	}
	return c
}

// closedByPeer waits for the end of a connection, and returns what came before.
func closedByPeer(t testing.TB, c net.Conn) []byte {
	t.Helper()
	b, err := io.ReadAll(c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the connection was not closed")
	}
	return b
}

func TestStrangersAreCountedAndClosed(t *testing.T) {
	altered := func(change func(*hello)) []byte {
		h := goodHello(2, 1)
		change(&h)
		return h.append(nil)
	}
	tooLong := binary.BigEndian.AppendUint32(nil, 1<<31)
	for _, c := range []struct {
		name, reason string
		send         []byte
		verdict      verdict
	}{
		{"HTTP", reasonLength, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 0},
		{"RESP", reasonLength, []byte("*9000000000000000000\r\n"), 0},
		{"a huge frame", reasonLength, append(tooLong, make([]byte, 100)...), 0},
		{"TLS", reasonSecret, []byte{22, 3, 1, 2, 0, 1}, 0},
		{"another frame than a hello", reasonMagic, appendFrame(nil, header{kind: TypeUser, id: magic}, make([]byte, 9)), 0},
		{"no magic", reasonMagic, appendFrame(nil, header{kind: typeHello}, make([]byte, 9)), 0},
		{"a hello of nobody", reasonHello, altered(func(h *hello) { h.from = 0 }), 0},
		{"a hello for no lane", reasonHello, altered(func(h *hello) { h.lane = laneCount }), 0},
		{"a short hello", reasonHello, appendFrame(nil, header{kind: typeHello, id: magic}, make([]byte, 3)), 0},
		{"another cluster", reasonCluster, altered(func(h *hello) { h.cluster++ }), refusedCluster},
		{"a newer version", reasonVersion, altered(func(h *hello) { h.versions = versionRange{2, 3} }), refusedVersion},
		{"version zero", reasonVersion, altered(func(h *hello) { h.versions = versionRange{} }), refusedVersion},
		{"another boot", reasonBoot, altered(func(h *hello) { h.to = 9 }), refusedGone},
		{"itself", reasonSelf, altered(func(h *hello) { h.from = 1 }), refusedSelf},
		{"no service", reasonService, altered(func(h *hello) { h.lane, h.service = laneStream, "x" }), refusedService},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := new(logLines)
			tr := start(t, 1, func(cfg *Config) { cfg.Logger = log.logger() })
			for range 3 {
				conn := dialRaw(t, tr)
				if _, err := conn.Write(c.send); err != nil {
					t.Fatal(err)
				}
				answer := closedByPeer(t, conn)
				if c.verdict == 0 {
					if len(answer) != 0 {
						t.Fatalf("answered %x", answer)
					}
					continue
				}
				head, payload, err := readOpening(bytes.NewReader(answer))
				if err != nil {
					t.Fatal(err)
				}
				if w, err := parseWelcome(head, payload); err != nil || w.verdict != c.verdict || w.version != 0 {
					t.Fatalf("%+v, %v", w, err)
				}
			}
			eventually(t, "counted", func() bool { return tr.Stats().Rejected[c.reason] == 3 })
			if n := log.count("peer refused", c.reason); n != 1 {
				t.Errorf("logged %d times", n)
			}
			healthy(t, tr)
		})
	}
}

// healthy checks that members are still served.
func healthy(t testing.TB, tr *Transport) {
	t.Helper()
	tr.Handle("health", func(context.Context, Boot, []byte) ([]byte, error) { return nil, nil })
	other := start(t, 77, func(c *Config) { c.Secrets, c.Cluster = tr.cfg.Secrets, tr.cfg.Cluster })
	other.SetPeers(map[Boot]Peer{tr.cfg.Self: {Addr: tr.Addr().String()}})
	deadline := time.Now().Add(5 * time.Second)
	for {
		_, err := other.Call(ctxFor(t, 2*time.Second), tr.cfg.Self, "health", nil)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not healthy: %v", err)
		}
	}
	_ = other.Close()
}

func TestMalformedFramesCloseTheConnection(t *testing.T) {
	good := header{kind: TypeUser, version: 1, target: 1}
	for _, c := range []struct {
		name, reason string
		send         []byte
	}{
		{"too short", reasonLength, []byte{0, 0, 0, 27}},
		{"too long", reasonLength, binary.BigEndian.AppendUint32(nil, MaxFrame-lengthBytes+1)},
		{"another version", reasonVersion, appendFrame(nil, header{kind: TypeUser, version: 2, target: 1}, nil)},
		{"another boot", reasonBoot, appendFrame(nil, header{kind: TypeUser, version: 1, target: 5}, nil)},
		{"unknown type", reasonType, appendFrame(nil, header{kind: 15, version: 1, target: 1}, nil)},
		{"a second hello", reasonType, appendFrame(nil, header{kind: typeHello, version: 1, target: 1, id: magic}, nil)},
		{"an empty call", reasonPayload, appendFrame(nil, header{kind: typeCall, version: 1, target: 1}, nil)},
		{"a call of no kind", reasonPayload, appendFrame(nil, header{kind: typeCall, version: 1, target: 1}, make([]byte, 5))},
		{"an empty reply", reasonPayload, appendFrame(nil, header{kind: typeReply, version: 1, target: 1}, nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			tr := start(t, 1, func(cfg *Config) { cfg.Message = func(_ Boot, m Message) { got = append(got, string(m.Payload)) } })
			conn := greet(t, tr, 2)
			if _, err := conn.Write(append(appendFrame(nil, good, []byte("before")), c.send...)); err != nil {
				t.Fatal(err)
			}
			closedByPeer(t, conn)
			eventually(t, "counted", func() bool { return tr.Stats().Rejected[c.reason] == 1 })
			_ = tr.Close()
			if len(got) != 1 || got[0] != "before" {
				t.Errorf("received %q", got)
			}
		})
	}
}

func TestHalfAFrame(t *testing.T) {
	tr := start(t, 1, func(c *Config) { c.Message = func(Boot, Message) { t.Error("half a frame was taken for a whole one") } })
	conn := greet(t, tr, 2)
	frame := appendFrame(nil, header{kind: TypeUser, version: 1, target: 1}, make([]byte, 100))
	_, _ = conn.Write(frame[:70])
	_ = conn.Close()
	eventually(t, "counted", func() bool { return tr.Stats().Rejected[reasonCut] == 1 })
	eventually(t, "forgotten", func() bool { return len(tr.Stats().Peers) == 0 })
	healthy(t, tr)
}

func TestSlowLorisIsCutOff(t *testing.T) {
	for name, change := range map[string]func(*Config){"plain": nil, "secret": withSecrets("s")} {
		t.Run(name, func(t *testing.T) {
			tr := start(t, 1, func(c *Config) {
				c.HandshakeTimeout = 100 * time.Millisecond
				if change != nil {
					change(c)
				}
			})
			began := time.Now()
			conn := dialRaw(t, tr)
			go func() { // one byte at a time, each well within any idle limit
				for _, b := range goodHello(2, 1).append(nil) {
					if _, err := conn.Write([]byte{b & 1}); err != nil {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}()
			closedByPeer(t, conn)
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("held on for %v", took)
			}
			eventually(t, "nobody is left", func() bool { return tr.Stats().Unauthenticated == 0 })
		})
	}
}

func TestSilentConnectionsMakeRoom(t *testing.T) {
	tr := start(t, 1, func(c *Config) { c.MaxPerSource, c.HandshakeTimeout = 8, 10*time.Second })
	var silent []net.Conn
	for range 30 {
		silent = append(silent, dialRaw(t, tr))
	}
	eventually(t, "the oldest were closed", func() bool { return tr.Stats().Rejected[reasonCrowd] == 22 })
	if n := tr.Stats().Unauthenticated; n != 8 {
		t.Errorf("%d are held", n)
	}
	closedByPeer(t, silent[0])
	healthy(t, tr)
}

func TestGateBounds(t *testing.T) {
	g := gate{most: 3, mostPerSource: 2}
	from := func(a string) net.Conn { return addressed{addr: a} }
	a1, _ := g.enter(from("10.0.0.1:1"))
	a2, _ := g.enter(from("10.0.0.1:2"))
	if _, out := g.enter(from("10.0.0.1:3")); out != a1 {
		t.Fatalf("a third from one source evicted %v", out)
	}
	b, out := g.enter(from("[2001:db8::1]:1"))
	if out != nil {
		t.Fatal("evicted without need")
	}
	if _, out := g.enter(from("10.0.0.9:1")); out != a2 {
		t.Fatal("a fourth did not evict the oldest")
	}
	if g.leave(a1) || g.leave(a2) || !g.leave(b) || g.leave(b) {
		t.Fatal("leave does not tell who was evicted")
	}
	if g.size() != 2 {
		t.Fatalf("%d are held", g.size())
	}
	if sourceOf(from("[2001:db8::1]:1").RemoteAddr()) != sourceOf(from("[2001:db8::2]:9").RemoteAddr()) {
		t.Error("one /64 is two sources")
	}
	g.close()
	if e, _ := g.enter(from("10.0.0.9:1")); e != nil {
		t.Error("entered a closed gate")
	}
}

type addressed struct {
	net.Conn
	addr string
}

func (a addressed) RemoteAddr() net.Addr { return addrOf(a.addr) }
func (a addressed) Close() error         { return nil }

type addrOf string

func (addrOf) Network() string  { return "test" }
func (a addrOf) String() string { return string(a) }

func TestGarbageIsBounded(t *testing.T) {
	tr := start(t, 1, func(c *Config) { c.Secrets, c.HandshakeTimeout = secretsOf("s"), 100*time.Millisecond })
	goroutines, most := runtime.NumGoroutine(), 0
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(worker)))
			for i := range 10_000 / 16 {
				c, err := net.Dial("tcp", tr.Addr().String())
				if err != nil {
					continue
				}
				_ = c.(*net.TCPConn).SetLinger(0)
				b := make([]byte, 1+r.IntN(200))
				for j := range b {
					b[j] = byte(r.Uint32())
				}
				_, _ = c.Write(b)
				if i%2 == 0 {
					_ = c.SetDeadline(time.Now().Add(5 * time.Second))
					_, _ = io.Copy(io.Discard, c)
				}
				_ = c.Close()
				if worker == 0 {
					most = max(most, runtime.NumGoroutine()-goroutines)
				}
			}
		})
	}
	wg.Wait()
	if most > 400 {
		t.Errorf("%d goroutines at once", most)
	}
	eventually(t, "all are gone", func() bool { return tr.Stats().Unauthenticated == 0 })
	healthy(t, tr)
}

func TestTLSWithoutCertificateIsRefused(t *testing.T) {
	tr := start(t, 1, withSecrets("s"))
	c := tls.Client(dialRaw(t, tr), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}})
	_, err := c.Write(goodHello(2, 1).append(nil))
	if err == nil {
		_, err = c.Read(make([]byte, 1)) // in TLS 1.3 the refusal comes with the first read
	}
	if err == nil {
		t.Fatal("a client without a certificate was heard")
	}
	old := tls.Client(dialRaw(t, tr), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err := old.Handshake(); err == nil {
		t.Fatal("TLS 1.2 was spoken")
	}
	eventually(t, "counted", func() bool { return tr.Stats().Rejected[reasonSecret] >= 2 })
}

func TestConnectionsAreBounded(t *testing.T) {
	tr := start(t, 1, func(c *Config) { c.MaxConnections = 2 })
	first := greet(t, tr, 2)
	greet(t, tr, 3)
	third := dialRaw(t, tr)
	_, _ = third.Write(goodHello(4, 1).append(nil))
	head, payload, err := readOpening(third)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := parseWelcome(head, payload); err != nil || w.verdict != refusedBusy {
		t.Fatalf("%+v %v", w, err)
	}
	_ = first.Close()
	eventually(t, "its place is free", func() bool { return tr.accepted.Load() == 1 })
	greet(t, tr, 5)
}
