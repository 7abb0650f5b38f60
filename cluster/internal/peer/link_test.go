package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func say(s string) Message { return Message{Type: TypeUser, Payload: []byte(s)} }

func TestMembersConnectBeforeAnythingIsSent(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, nil), v.add(2, nil)
		v.introduce()
		time.Sleep(10 * time.Millisecond)
		for _, lane := range []Lane{LaneOps, LaneControl, LaneBulk} {
			if !a.Connected(2, lane) || !b.Connected(1, lane) {
				t.Errorf("lane %v is not connected", lane)
			}
		}
		if a.Connected(2, LaneCalls) {
			t.Error("lane calls is connected though nothing was sent")
		}
		time.Sleep(time.Minute)
		if n := a.Stats().Connections; n != 3 {
			t.Errorf("%d connections where one a lane is enough", n)
		}
		if l := a.lost(); len(l) != 0 {
			t.Errorf("lost %v in peace", l)
		}
	})
}

func TestSendQueuesUntilConnected(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		v.net.SetDelay(5 * time.Millisecond)
		a, b := v.add(1, nil), v.add(2, nil)
		v.introduce()
		var want []string
		for i := range 20 {
			want = append(want, fmt.Sprint(i))
			if err := b.Send(1, LaneOps, say(want[i])); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		if got := a.heard(); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

func TestReachableOneWayOnly(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, nil), v.add(2, nil)
		peers := v.peers()
		b.SetPeers(peers)
		peers[2] = Peer{Node: "node2", Addr: "10.0.0.99:1"} // nobody there
		a.SetPeers(peers)
		time.Sleep(time.Second)
		if err := a.Send(2, LaneOps, say("hello")); err != nil {
			t.Fatal(err)
		}
		if got := b.heard(); !slices.Equal(got, []string{"hello"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestUnlistedMemberIsHeardAndAnswered(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		var a *villager
		a = v.add(1, func(c *Config) {
			c.Message = func(from Boot, m Message) {
				if err := a.Reply(m.Via, say("re: "+string(m.Payload))); err != nil {
					t.Error(err)
				}
			}
		})
		b := v.add(2, nil)
		if err := a.Send(2, LaneOps, say("x")); !errors.Is(err, ErrUnknownPeer) {
			t.Errorf("sent to a stranger: %v", err)
		}
		b.SetPeers(v.peers())
		_ = b.Send(1, LaneOps, say("question"))
		if got := b.heard(); !slices.Equal(got, []string{"re: question"}) {
			t.Fatalf("got %v", got)
		}
		if err := a.Send(2, LaneOps, say("more")); err != nil {
			t.Fatal(err)
		}
		if err := a.Send(2, LaneBulk, say("no connection, and no address")); !errors.Is(err, ErrUnknownPeer) {
			t.Errorf("got %v", err)
		}
		if got := b.heard(); len(got) != 2 {
			t.Errorf("got %v", got)
		}
		a.SetPeers(nil) // does not concern who was never named
		if err := a.Send(2, LaneOps, say("still")); err != nil {
			t.Error(err)
		}
	})
}

func TestUnlistedMemberIsDroppedWhenUnused(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, nil), v.add(2, nil)
		b.SetPeers(v.peers())
		time.Sleep(29 * time.Second)
		if !b.Connected(1, LaneOps) {
			t.Fatal("not connected")
		}
		_ = b.Send(1, LaneOps, say("in use"))
		time.Sleep(29 * time.Second)
		if a.Stats().Connections == 0 {
			t.Fatal("dropped while in use")
		}
		_ = b.Close()
		time.Sleep(time.Second)
		if n := len(a.Stats().Peers); n != 0 {
			t.Errorf("%d strangers are remembered", n)
		}
	})
}

func TestUnusedStrangerIsDropped(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a := v.add(1, nil)
		nc, err := v.net.Host("10.0.0.2").Dial(t.Context(), a.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_, _ = nc.Write(goodHello(2, 1).append(nil))
		go func() { // pongs only
			for {
				h, _, err := readOpening(nc)
				if err != nil {
					return
				}
				if h.kind == typePing {
					_, _ = nc.Write(appendFrame(nil, header{kind: typePong, version: 1, target: 1}, nil))
				}
			}
		}()
		time.Sleep(29 * time.Second)
		if a.Stats().Connections != 1 {
			t.Fatal("dropped early")
		}
		time.Sleep(2 * time.Second)
		if s := a.Stats(); s.Connections != 0 || len(s.Peers) != 0 {
			t.Errorf("kept: %+v", s)
		}
	})
}

func TestRemovedPeerIsDisconnected(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, nil), v.add(2, nil)
		v.introduce()
		_ = a.Send(2, LaneOps, say("hello"))
		synctest.Wait()
		peers := v.peers()
		delete(peers, 2)
		a.SetPeers(peers)
		if err := a.Send(2, LaneOps, say("x")); !errors.Is(err, ErrUnknownPeer) {
			t.Errorf("got %v", err)
		}
		if a.lostLanes(2)[LaneOps] != 1 || b.lostLanes(1)[LaneOps] != 1 {
			t.Errorf("losses: %v %v", a.lost(), b.lost())
		}
		time.Sleep(time.Second) // b dials again: it is a member as far as it knows
		if err := b.Send(1, LaneOps, say("I am alive")); err != nil {
			t.Fatal(err)
		}
		if got := a.heard(); !slices.Equal(got, []string{"I am alive"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestDeathIsSeenAtOnce(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a := v.add(1, nil)
		v.add(2, nil)
		v.introduce()
		time.Sleep(time.Second)
		v.net.Kill(hostOf(2))
		if got := a.lostLanes(2); got[LaneOps] != 1 || got[LaneControl] != 1 || got[LaneBulk] != 1 || len(got) != 3 {
			t.Errorf("losses: %v", got)
		}
		time.Sleep(50 * time.Millisecond)
		if err := a.Send(2, LaneOps, say("x")); !errors.Is(err, ErrUnreachable) {
			t.Errorf("sent to the dead: %v", err)
		}
	})
}

func TestSilenceIsSeenWithinASecond(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, nil), v.add(2, nil)
		v.introduce()
		_ = a.Send(2, LaneBulk, say("x"))
		time.Sleep(10 * time.Second)
		if n := len(a.lost()) + len(b.lost()); n != 0 {
			t.Fatalf("%d losses in peace", n)
		}
		v.net.Split(a.host, b.host)
		time.Sleep(time.Second)
		for _, m := range []*villager{a, b} {
			other := Boot(3) - m.cfg.Self
			if got := m.lostLanes(other); got[LaneOps] != 1 || got[LaneControl] != 1 || got[LaneBulk] != 0 {
				t.Errorf("losses: %v", got)
			}
		}
		time.Sleep(10 * time.Second)
		if a.lostLanes(2)[LaneBulk] != 1 {
			t.Errorf("losses: %v", a.lost())
		}
		v.net.Heal(a.host, b.host)
		time.Sleep(2 * time.Second)
		if !a.Connected(2, LaneOps) || !b.Connected(1, LaneOps) {
			t.Error("not connected again within 2 s of healing")
		}
	})
}

// A process that was stopped for long must not take its own sleep for the silence of others: silence counts in beats.
func TestOwnPauseIsNotSilence(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a := v.add(1, nil)
		a.SetPeers(map[Boot]Peer{2: {Node: "node2"}})
		ours, theirs := net.Pipe()
		defer theirs.Close()
		c := newConn(a.peer(2).links[LaneOps], ours, 1) // not attached, so that only this test's beats count
		most := int(a.cfg.Silence / pulseEvery)
		for range most - 1 {
			time.Sleep(time.Hour)
			c.beat()
		}
		if c.dead() {
			t.Error("hours of sleep are taken for silence")
		}
		if c.beat(); !c.dead() || c.err != errSilent {
			t.Errorf("not dead after %d silent beats", most)
		}
	})
}

func TestStuckWriterIsNoticed(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a := v.add(1, nil)
		nc, err := v.net.Host("10.0.0.2").Dial(t.Context(), a.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_, _ = nc.Write(goodHello(2, 1).append(nil))
		done := make(chan struct{})
		go func() { // talks, and reads nothing
			defer close(done)
			for {
				if _, err := nc.Write(appendFrame(nil, header{kind: typePong, version: 1, target: 1}, nil)); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		time.Sleep(time.Second)
		for range 3 {
			if err := a.Send(2, LaneOps, Message{Type: TypeUser, Payload: make([]byte, 1<<19)}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if a.lostLanes(2)[LaneOps] != 1 {
			t.Errorf("losses: %v", a.lost())
		}
		<-done
	})
}

func TestQueueIsBounded(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a := v.add(1, func(c *Config) { c.MaxQueue = MaxFrame })
		b := v.add(2, nil)
		v.introduce()
		time.Sleep(time.Second)
		v.net.Cut(a.host, b.host)
		sent := 0
		for {
			err := a.Send(2, LaneOps, Message{Type: TypeUser, Payload: make([]byte, 1<<16)})
			if errors.Is(err, ErrQueueFull) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			sent++
			synctest.Wait()
		}
		if sent < 15 || sent > 40 { // the queue, what is being written, and the window of the network
			t.Errorf("%d frames of 64 KiB fit a queue of 1 MiB", sent)
		}
		if q := a.Stats().Peers[0].Queued; q > MaxFrame || q < MaxFrame/2 {
			t.Errorf("%d bytes are queued", q)
		}
		v.net.Heal(a.host, b.host)
		if n := len(b.heard()); n != sent {
			t.Errorf("%d of %d arrived", n, sent)
		}
		if err := a.Send(2, LaneOps, Message{Type: TypeUser, Payload: make([]byte, MaxPayload+1)}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v", err)
		}
		if err := a.Send(2, LaneOps, Message{Type: TypeUser, Payload: make([]byte, MaxPayload)}); err != nil {
			t.Errorf("got %v", err)
		}
		if got := b.heard(); len(got) != sent+1 || len(got[sent]) != MaxPayload {
			t.Error("the largest frame did not arrive")
		}
	})
}

func TestQueueIsBoundedWhileDialing(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, func(c *Config) { c.MaxQueue = MaxFrame }), v.add(2, nil)
		v.net.Split(a.host, b.host)
		v.introduce()
		var err error
		for range 20 {
			if err = a.Send(2, LaneOps, Message{Type: TypeUser, Payload: make([]byte, 1<<16)}); err != nil {
				break
			}
		}
		if !errors.Is(err, ErrQueueFull) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(3 * time.Second)
		if n := a.lostLanes(2)[LaneOps]; n != 1 {
			t.Errorf("%d losses for what was queued in vain", n)
		}
	})
}

func TestNewProcessAtTheSameAddress(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, nil), v.add(2, nil)
		v.introduce()
		time.Sleep(time.Second)
		v.net.Kill(b.host)
		_ = b.Close()
		reborn := v.add(3, func(c *Config) {
			h := v.net.Host(b.host)
			c.Bind, c.Listen, c.Dial = b.Addr().String(), h.Listen, h.Dial
		})
		time.Sleep(2 * time.Second)
		if n := a.gone(2); n != 1 {
			t.Errorf("gone was told %d times", n)
		}
		for _, lane := range []Lane{LaneOps, LaneBulk} {
			if err := a.Send(2, lane, say("to the dead")); !errors.Is(err, ErrPeerGone) {
				t.Errorf("lane %v: %v", lane, err)
			}
		}
		a.SetPeers(map[Boot]Peer{3: {Node: "node2", Addr: b.Addr().String()}})
		if err := a.Send(3, LaneOps, say("to the living")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := reborn.heard(); !slices.Equal(got, []string{"to the living"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestNewAddressIsDialedAtOnce(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, nil), v.add(2, nil)
		peers := map[Boot]Peer{2: {Node: "node2", Addr: "10.0.0.50:1"}}
		a.SetPeers(peers)
		time.Sleep(time.Minute) // the backoff is at its longest
		if err := a.Send(2, LaneOps, say("x")); !errors.Is(err, ErrUnreachable) {
			t.Fatal(err)
		}
		peers[2] = Peer{Node: "node2", Addr: b.Addr().String()}
		a.SetPeers(peers)
		synctest.Wait()
		if !a.Connected(2, LaneOps) || !a.Connected(2, LaneControl) {
			t.Error("not connected at once")
		}
	})
}

func TestBackoffGrowsToASecond(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		1: 10 * time.Millisecond, 2: 20 * time.Millisecond, 5: 160 * time.Millisecond, 7: 640 * time.Millisecond,
		8: time.Second, 1000: time.Second,
	} {
		for range 100 {
			if d := backoff(failures); d < want/2 || d >= want*3/2 {
				t.Fatalf("after %d failures %v", failures, d)
			}
		}
	}
}

// Real TCP, many senders: each sender's frames arrive in order, and they are packed.
func TestFramesOfALaneKeepTheirOrder(t *testing.T) {
	for name, change := range map[string]func(*Config){"plain": nil, "secret": withSecrets("s")} {
		t.Run(name, func(t *testing.T) {
			const senders, each = 32, 500
			var next [senders]uint64
			var arrived int
			all := make(chan struct{})
			b := start(t, 2, func(c *Config) {
				c.Message = func(from Boot, m Message) {
					if from != 1 || m.Epoch != next[m.Slot] || m.ID != m.Epoch*7 || len(m.Payload) != int(m.Epoch)%300 {
						t.Errorf("sender %d: frame %d where %d was due", m.Slot, m.Epoch, next[m.Slot])
					}
					next[m.Slot]++
					if arrived++; arrived == senders*each {
						close(all)
					}
				}
				if change != nil {
					change(c)
				}
			})
			a := start(t, 1, change)
			introduce(a, b)
			var wg sync.WaitGroup
			for s := range senders {
				wg.Go(func() {
					payload := make([]byte, 300)
					for i := range uint64(each) {
						m := Message{Type: TypeUser, ID: i * 7, Slot: uint16(s), Epoch: i, Payload: payload[:i%300]}
						if err := a.Send(2, LaneOps, m); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			select {
			case <-all:
			case <-time.After(10 * time.Second):
				t.Fatalf("%d of %d arrived", arrived, senders*each)
			}
			eventually(t, "counted", func() bool { return a.Stats().FramesSent >= senders*each })
			if s := a.Stats(); s.Writes > s.FramesSent/3 {
				t.Errorf("%d frames took %d writes", s.FramesSent, s.Writes)
			}
		})
	}
}

func TestSendDoesNotAllocate(t *testing.T) {
	a, b := start(t, 1, nil), start(t, 2, func(c *Config) { c.Message = func(Boot, Message) {} })
	introduce(a, b)
	eventually(t, "connected", func() bool { return a.Connected(2, LaneOps) })
	n := testing.AllocsPerRun(2000, func() {
		var payload [48]byte
		if err := a.Send(2, LaneOps, Message{Type: TypeUser, Payload: payload[:]}); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

func TestRestartOnTheSameAddressOverTCP(t *testing.T) {
	var mu sync.Mutex
	var losses []Loss
	a := start(t, 1, func(c *Config) {
		c.Secrets = secretsOf("s")
		c.Down = func(l Loss) { mu.Lock(); defer mu.Unlock(); losses = append(losses, l) }
	})
	b := start(t, 2, withSecrets("s"))
	introduce(a, b)
	eventually(t, "connected", func() bool { return a.Connected(2, LaneOps) && a.Connected(2, LaneControl) })
	addr := b.Addr().String()
	_ = b.Close()
	start(t, 3, func(c *Config) { c.Secrets, c.Bind = secretsOf("s"), addr })
	eventually(t, "the old one is known to be gone", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.ContainsFunc(losses, func(l Loss) bool { return l.Gone && l.Boot == 2 && errors.Is(l.Err, ErrPeerGone) })
	})
	a.SetPeers(map[Boot]Peer{3: {Node: "b", Addr: addr}})
	eventually(t, "the new one is connected", func() bool { return a.Connected(3, LaneOps) })
}

func TestVersions(t *testing.T) {
	speaks := func(oldest, newest uint8, log *logLines) func(*Config) {
		return func(c *Config) {
			c.versions = versionRange{oldest, newest}
			if log != nil {
				c.Logger = log.logger()
			}
		}
	}
	log, other := new(logLines), new(logLines)
	b := start(t, 2, speaks(1, 2, log))
	before, same := start(t, 1, speaks(1, 1, nil)), start(t, 4, speaks(1, 2, nil))
	introduce(before, b, same)
	for _, m := range []*Transport{before, b, same} {
		m.HandleStream("echo", echoStream)
		m.Handle("echo", func(_ context.Context, _ Boot, p []byte) ([]byte, error) { return p, nil })
	}
	for _, c := range []struct {
		who      string
		from, to *Transport
		version  uint8
	}{
		{"who is one version behind", before, b, 1},
		{"who is one version ahead", b, before, 1},
		{"who speaks the same", b, same, 2},
	} {
		if answer, err := c.from.Call(ctxFor(t, 5*time.Second), c.to.cfg.Self, "echo", []byte("x")); err != nil || string(answer) != "x" {
			t.Errorf("%s answered %q, %v", c.who, answer, err)
		}
		s, err := c.from.DialStream(ctxFor(t, 5*time.Second), c.to.cfg.Self, "echo")
		if err != nil {
			t.Errorf("%s serves no stream: %v", c.who, err)
			continue
		}
		_ = s.Close()
		for _, l := range c.from.peer(c.to.cfg.Self).links {
			for _, conn := range l.snapshot() {
				if conn.version != c.version {
					t.Errorf("%s is spoken to in version %d", c.who, conn.version)
				}
			}
		}
	}

	after := start(t, 3, speaks(3, 4, other))
	after.SetPeers(map[Boot]Peer{2: {Addr: b.Addr().String()}})
	eventually(t, "both say why", func() bool {
		return log.count("peer refused", "speaks protocol versions 3 to 4, this member 1 to 2") == 1 &&
			other.count("peer refused", "speaks protocol versions 1 to 2, this member 3 to 4") == 1
	})
	eventually(t, "several tries", func() bool { return after.Stats().Rejected[reasonVersion] > 3 })
	if n := other.count("peer refused"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

func TestWhatWaitedTooLongIsNotSent(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, nil), v.add(2, nil)
		v.net.Split(a.host, b.host)
		v.introduce()
		if err := a.Send(2, LaneOps, say("early")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		if err := a.Send(2, LaneOps, say("x")); !errors.Is(err, ErrUnreachable) {
			t.Errorf("queued behind a dial that hangs: %v", err)
		}
		time.Sleep(time.Second)
		v.net.Heal(a.host, b.host)
		time.Sleep(100 * time.Millisecond)
		if err := a.Send(2, LaneOps, say("late")); err != nil {
			t.Fatal(err)
		}
		if got := b.heard(); !slices.Equal(got, []string{"late"}) {
			t.Errorf("got %v", got)
		}
		if n := a.lostLanes(2)[LaneOps]; n != 1 {
			t.Errorf("%d losses for what was dropped", n)
		}
	})
}

// An address that belongs to another member does not make its owner dead as long as there is a connection to it.
func TestConnectedPeerWithAWrongAddressIsNotGone(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, nil), v.add(2, nil)
		c := v.add(3, nil)
		b.SetPeers(v.peers())
		time.Sleep(time.Second)
		a.SetPeers(map[Boot]Peer{2: {Node: "node2", Addr: c.Addr().String()}})
		_ = a.Send(2, LaneBulk, say("dials"))
		time.Sleep(time.Second)
		if n := a.gone(2); n != 0 {
			t.Errorf("gone was told %d times of a peer that is connected", n)
		}
		if err := a.Send(2, LaneOps, say("alive")); err != nil {
			t.Error(err)
		}
	})
}

func TestReservedTypesAreNotSent(t *testing.T) {
	a, b := start(t, 1, nil), start(t, 2, nil)
	introduce(a, b)
	if err := a.Send(2, LaneOps, Message{Type: TypeUser - 1}); !errors.Is(err, ErrType) {
		t.Errorf("got %v", err)
	}
	if err := a.Reply(Via{}, Message{}); !errors.Is(err, ErrType) {
		t.Errorf("got %v", err)
	}
	if err := a.Reply(Via{}, say("nowhere")); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}
