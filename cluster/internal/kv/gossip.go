package kv

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Gossip is the port that olric's memberlist listens on. It is opened before
// the cluster's membership tells others of it.
type Gossip struct {
	host      string // what to bind to
	port      int
	advertise netip.Addr // invalid: left to memberlist

	mu   sync.Mutex // guards open
	open *memberlist.NetTransport
}

// Listen opens the port of bind, host:port. An empty host means all IPv4
// addresses, a port of 0 a free one. advertise is the IP address or host name by
// which other members reach this one; empty means the host of bind, or where
// that is empty too, the first private address.
func Listen(bind, advertise string) (*Gossip, error) {
	addr, err := net.ResolveTCPAddr("tcp", bind)
	if err != nil {
		return nil, fmt.Errorf("kv: bind %q: %w", bind, err)
	}
	// memberlist finds an address to advertise for this spelling of "all".
	g := &Gossip{host: "0.0.0.0", port: addr.Port}
	if len(addr.IP) > 0 && !addr.IP.Equal(net.IPv4zero) {
		g.host = addr.IP.String()
		if advertise == "" && !addr.IP.IsUnspecified() {
			advertise = g.host
		}
	}
	if advertise != "" {
		ip, err := net.ResolveIPAddr("ip", advertise)
		if err != nil {
			return nil, fmt.Errorf("kv: advertise %q: %w", advertise, err)
		}
		a, _ := netip.AddrFromSlice(ip.IP)
		g.advertise = a.Unmap()
	}
	if g.open, err = g.listen(log.New(io.Discard, "", 0)); err != nil {
		return nil, fmt.Errorf("kv: bind %q: %w", bind, err)
	}
	g.port = g.open.GetAutoBindPort()
	if a := g.Addr(); a == "" || strings.HasPrefix(a, "[::]:") {
		return nil, errors.Join(fmt.Errorf("kv: bind %q: no address to advertise was found, give one", bind), g.Close())
	}
	return g, nil
}

func (g *Gossip) listen(logger *log.Logger) (*memberlist.NetTransport, error) {
	// A free TCP port may be taken for UDP.
	for try := 0; ; try++ {
		t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{g.host},
			BindPort:  g.port,
			Logger:    logger,
		})
		if err == nil || g.port != 0 || try == 9 {
			return t, err
		}
	}
}

// Port is the port it listens on.
func (g *Gossip) Port() int { return g.port }

// Addr is host:port for other members. Where no host is known it is empty.
func (g *Gossip) Addr() string {
	if g.advertise.IsValid() {
		return netip.AddrPortFrom(g.advertise, uint16(g.port)).String()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		return ""
	}
	ip, port, err := g.open.FinalAdvertiseAddr("", g.port)
	if err != nil {
		return ""
	}
	return net.JoinHostPort(ip.String(), strconv.Itoa(port))
}

// take gives away the open port, or opens it again where it was given away
// before.
func (g *Gossip) take(logger *log.Logger) (*memberlist.NetTransport, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.open; t != nil {
		g.open = nil
		return t, nil
	}
	t, err := g.listen(logger)
	if err != nil {
		return nil, fmt.Errorf("kv: gossip port %d: %w", g.port, err)
	}
	return t, nil
}

// Close closes the port unless it was given to a store.
func (g *Gossip) Close() error {
	g.mu.Lock()
	t := g.open
	g.open = nil
	g.mu.Unlock()
	if t == nil {
		return nil
	}
	return closeTransport(t)
}

// closeTransport closes a transport that nobody reads from. Its Shutdown waits
// for listeners which may be waiting to hand something over.
func closeTransport(t *memberlist.NetTransport) error {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-t.PacketCh():
			case conn := <-t.StreamCh():
				_ = conn.Close()
			}
		}
	})
	err := t.Shutdown()
	close(done)
	wg.Wait()
	return err
}

// gossipKeys derives the gossip's keys, 32 bytes each, from the secrets.
func gossipKeys(secrets [][]byte) ([][]byte, error) {
	var keys [][]byte
	for _, s := range secrets {
		k, err := hkdf.Key(sha256.New, s, nil, "peerlimit kv gossip 1", 32)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// newKeyring makes memberlist's key ring of the secrets; nil where there are
// none.
func newKeyring(secrets [][]byte) (*memberlist.Keyring, error) {
	keys, err := gossipKeys(secrets)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, errKeyring
	}
	return ring, nil
}

// errKeyring takes the place of memberlist's errors, which could quote a key.
var errKeyring = errors.New("kv: the secrets make no key ring")

// SetSecrets replaces the secrets while the store runs: the first is used, all
// are accepted. A store without secrets can't get any, nor one with some lose
// all.
func (s *Store) SetSecrets(secrets [][]byte) error {
	if (len(secrets) == 0) != (s.keyring == nil) {
		return errors.New("kv: a running store can't get its first secret or lose its last")
	}
	if s.keyring == nil {
		return nil
	}
	keys, err := gossipKeys(secrets)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if s.keyring.AddKey(k) != nil {
			return errKeyring
		}
	}
	if s.keyring.UseKey(keys[0]) != nil {
		return errKeyring
	}
	for _, old := range s.keyring.GetKeys() {
		if !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, old) }) && s.keyring.RemoveKey(old) != nil {
			return errKeyring
		}
	}
	return nil
}

// gossipConfig is memberlist's configuration. Detecting a death takes about a
// probe interval or two and the suspicion of 3 × log10(members) intervals, at
// least 1.5 s.
func gossipConfig(cfg Config, ring *memberlist.Keyring, t *memberlist.NetTransport) *memberlist.Config {
	mc := memberlist.DefaultLANConfig()
	mc.Transport = t
	// With a transport of its own memberlist doesn't bind; olric wants an
	// address here that it can resolve, and refuses a peer that equals it.
	mc.BindAddr, mc.BindPort = "127.0.0.1", cfg.Gossip.port
	mc.AdvertisePort = cfg.Gossip.port
	if cfg.Gossip.advertise.IsValid() {
		mc.AdvertiseAddr = cfg.Gossip.advertise.String()
	}
	mc.Label = cfg.ClusterName
	mc.Keyring = ring
	mc.TCPTimeout = time.Second
	mc.SuspicionMult = 3
	mc.SuspicionMaxTimeoutMult = 3
	mc.PushPullInterval = 10 * time.Second
	mc.ProbeInterval = slowness * 500 * time.Millisecond
	mc.ProbeTimeout = slowness * 250 * time.Millisecond
	mc.AwarenessMaxMultiplier = 4
	mc.GossipInterval = 50 * time.Millisecond // a leave waits for one, and calls for the leave
	mc.GossipToTheDeadTime = 5 * time.Second
	return mc
}
