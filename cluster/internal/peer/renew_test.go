package peer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// chatter has two members send each other a numbered message a millisecond until stop is called, which returns how many.
// What is sent by one connection may arrive before what was sent earlier by another.
func chatter(t *testing.T, v *village, a, b *villager, lane Lane) (stop func() (sent int)) {
	end, ended := make(chan struct{}), make(chan int)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-end:
				ended <- i
				return
			case <-time.After(time.Millisecond):
			}
			v.net.SetDelay(time.Duration(20-i%20) * time.Millisecond)
			if err := errors.Join(a.Send(b.cfg.Self, lane, say(fmt.Sprint(i))), b.Send(a.cfg.Self, lane, say(fmt.Sprint(i)))); err != nil {
				t.Errorf("message %d: %v", i, err)
			}
		}
	}()
	return func() int { close(end); return <-ended }
}

// A secret is withdrawn from one member and then from the other, or from both at once, while they talk: every message
// arrives, in its order, and from then on by connections of the new secret.
func TestWithdrawingASecretLosesNothing(t *testing.T) {
	for _, lane := range []Lane{LaneOps, LaneCalls} {
		for _, apart := range []time.Duration{time.Second, 3 * time.Millisecond, 0} {
			t.Run(fmt.Sprintf("%v, %v apart", lane, apart), func(t *testing.T) {
				inVillage(t, func(t *testing.T, v *village) {
					a, b := v.add(1, withSecrets("old")), v.add(2, withSecrets("old"))
					v.introduce()
					time.Sleep(time.Second)
					stop := chatter(t, v, a, b, lane)
					for _, step := range [][][]byte{secretsOf("old", "new"), secretsOf("new", "old"), secretsOf("new")} {
						time.Sleep(100 * time.Millisecond)
						for _, m := range []*villager{a, b} {
							if err := m.SetSecrets(step); err != nil {
								t.Error(err)
							}
							time.Sleep(apart)
						}
					}
					time.Sleep(100 * time.Millisecond)
					sent := stop()
					time.Sleep(time.Second)
					var want []string
					for i := range sent {
						want = append(want, fmt.Sprint(i))
					}
					for _, m := range []*villager{a, b} {
						if got := m.heard(); !slices.Equal(got, want) {
							t.Errorf("%s got %d of %d messages, or in another order", m.cfg.Node, len(got), len(want))
						}
						if l := m.lost(); len(l) != 0 {
							t.Errorf("%s lost %v", m.cfg.Node, l)
						}
						for _, c := range m.allConns() {
							if !m.security.accepts(c.nc) {
								t.Errorf("%s has a connection of the old secret", m.cfg.Node)
							}
						}
						if n := m.Stats().Rejected[reasonSecret]; n != 0 {
							t.Errorf("%s refused %d connections", m.cfg.Node, n)
						}
					}
				})
			})
		}
	}
}

// A secret is withdrawn while connections are being made by which something waits to be sent.
func TestWithdrawingASecretWhileConnecting(t *testing.T) {
	for after := time.Duration(0); after < 150*time.Millisecond; after += 5 * time.Millisecond {
		t.Run(after.String(), func(t *testing.T) {
			inVillage(t, func(t *testing.T, v *village) {
				v.net.SetDelay(20 * time.Millisecond)
				a, b := v.add(1, withSecrets("old", "new")), v.add(2, withSecrets("old", "new"))
				v.introduce()
				for _, lane := range []Lane{LaneOps, LaneCalls} {
					if err := errors.Join(a.Send(2, lane, say("x")), b.Send(1, lane, say("x"))); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(after)
				for _, step := range [][][]byte{secretsOf("new", "old"), secretsOf("new")} {
					if err := errors.Join(a.SetSecrets(step), b.SetSecrets(step)); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Second)
				for _, m := range []*villager{a, b} {
					if got, lost, refused := m.heard(), m.lost(), m.Stats().Rejected[reasonSecret]; len(got) != 2 || len(lost) > 0 {
						t.Errorf("%s got %v, lost %v, refused %d", m.cfg.Node, got, lost, refused)
					}
				}
			})
		})
	}
}

// Who never learns of the new secret is cut off, though not at once.
func TestWithdrawnSecretIsOutAfterAWhile(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, withSecrets("old")), v.add(2, withSecrets("old"))
		b.HandleStream("echo", echoStream)
		v.introduce()
		time.Sleep(time.Second)
		s, err := a.DialStream(ctxFor(t, time.Second), 2, "echo")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := b.SetSecrets(secretsOf("new")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Error("a stream of the old secret goes on")
		}
		time.Sleep(b.cfg.HandshakeTimeout - time.Millisecond)
		if !b.Connected(1, LaneOps) {
			t.Error("it was cut off at once")
		}
		time.Sleep(2 * time.Millisecond)
		if b.Connected(1, LaneOps) || a.Connected(2, LaneOps) {
			t.Error("still connected")
		}
		if n := a.lostLanes(2)[LaneOps]; n != 1 {
			t.Errorf("%d losses", n)
		}
	})
}

// A connection that ends while leave is taken of it, or on which that is not answered, is a loss, and what waited is
// sent by the next one.
func TestLeaveThatIsNotAnswered(t *testing.T) {
	inVillage(t, func(t *testing.T, v *village) {
		a, b := v.add(1, nil), v.add(2, nil)
		v.introduce()
		time.Sleep(time.Second)
		_ = a.Send(2, LaneOps, say("before"))
		time.Sleep(time.Millisecond)
		v.net.SetDelay(time.Second)
		l := a.peer(2).links[LaneOps]
		l.leave(l.cur.Load())
		if err := a.Send(2, LaneOps, say("meanwhile")); err != nil {
			t.Fatal(err)
		}
		if a.peer(2).links[LaneOps].cur.Load() != nil {
			t.Error("sent before the other side has read what is before")
		}
		time.Sleep(leaveBeats*pulseEvery - time.Millisecond)
		if n := a.lostLanes(2)[LaneOps]; n != 0 {
			t.Errorf("%d losses too early", n)
		}
		v.net.SetDelay(0)
		time.Sleep(2 * pulseEvery)
		if n := a.lostLanes(2)[LaneOps]; n != 1 {
			t.Errorf("%d losses", n)
		}
		time.Sleep(2 * time.Second)
		if got := b.heard(); !slices.Equal(got, []string{"before", "meanwhile"}) {
			t.Errorf("got %v", got)
		}
	})
}

// The authority of certificates is replaced while members are connected, in three steps; who has a certificate of the
// old one only is refused from then on.
func TestAuthorityIsReplaced(t *testing.T) {
	first, second := newAuthority(t), newAuthority(t)
	both := first.pool.Clone()
	both.AddCert(second.cert)
	certificate := func(own *authority, accepted *x509.CertPool) *tls.Config {
		c := own.member(t, "member")
		c.RootCAs = accepted
		return c
	}
	losses := make(chan Loss, 100)
	member := func(self Boot) *Transport {
		return start(t, self, func(c *Config) {
			c.Certificates, c.Down = certificate(first, first.pool), func(l Loss) { losses <- l }
		})
	}
	a, b := member(1), member(2)
	introduce(a, b)
	connected := func() bool { return a.Connected(2, LaneOps) && b.Connected(1, LaneOps) }
	eventually(t, "connected", connected)
	for _, step := range []*tls.Config{certificate(first, both), certificate(second, both), certificate(second, second.pool)} {
		for _, x := range []*Transport{a, b} {
			if err := x.SetCertificates(step); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "connected by certificates of the new authority only", func() bool {
		for _, x := range []*Transport{a, b} {
			if withdrawn := slices.DeleteFunc(x.allConns(), func(c *conn) bool { return x.security.accepts(c.nc) }); len(withdrawn) > 0 {
				return false
			}
		}
		return connected()
	})
	if len(losses) > 0 {
		t.Errorf("%d losses, the first %v", len(losses), <-losses)
	}
	old := start(t, 3, func(c *Config) { c.Certificates = certificate(first, both) })
	old.SetPeers(map[Boot]Peer{1: {Addr: a.Addr().String()}})
	eventually(t, "the old authority's member is refused", func() bool { return a.Stats().Rejected[reasonSecret] > 0 })

	if err := a.SetCertificates(new(tls.Config)); err == nil {
		t.Error("the authority was taken away")
	}
	if err := start(t, 4, withSecrets("s")).SetCertificates(certificate(first, both)); err == nil {
		t.Error("a member with secrets was given a certificate")
	}
	if err := a.SetSecrets(secretsOf("s")); err == nil {
		t.Error("a member with certificates was given a secret")
	}
}
