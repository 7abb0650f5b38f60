package kv

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/olric-data/olric/pkg/storage"
)

func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(newEnvelope(modeWrite, KindValue, 0, 1, "k", []byte("v"))))
	f.Add([]byte(newEnvelope(modeStored, KindTombstone, 7, 1, "key", nil)))
	f.Add([]byte{envelopeFormat})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEnvelope(b)
		if err != nil {
			return
		}
		again := newEnvelope(e.mode(), e.kind(), e.version(), e.expires(), string(e.key()), e.payload())
		if !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
		s := e.stored(9)
		if s.version() != 9 || s.mode() != modeStored || !bytes.Equal(s.payload(), e.payload()) {
			t.Fatalf("stored: %x", s)
		}
	})
}

// What olric is given by other members goes through these.
func FuzzEngine(f *testing.F) {
	good := newEnvelope(modeStored, KindValue, 7, 1<<62, "k", []byte("v"))
	f.Add([]byte(good))
	root := &fork{root: newEngine(newClock(), 1<<20)}
	src, _ := root.Fork(nil)
	_ = src.PutRaw(1, good)
	f.Add([]byte{})
	it := src.TransferIterator()
	it.Next()
	if data, _, err := it.Export(); err == nil {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dst, _ := root.Fork(nil)
		defer dst.Destroy()
		_ = dst.PutRaw(3, b)
		_ = dst.Import(b, func(hkey uint64, e storage.Entry) error { return dst.Put(hkey, e) })
		e := dst.NewEntry()
		e.Decode(b)
		_ = e.Encode()
		_ = dst.Put(4, e)
		_, _ = dst.Get(4)
		_, _ = dst.GetKey(4)
		_, _ = dst.GetTTL(4)
	})
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("PLK1\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x03abc"))
	f.Add([]byte("\x00\x02\x00\x0b127.0.0.1:7\x00\x0b127.0.0.1:8"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, clock, name, err := readHello(bytes.NewReader(b)); err == nil {
			var w bytes.Buffer
			if err := writeHello(pipeTo{Writer: &w}, a, clock, name); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(w.Bytes(), b[:w.Len()]) {
				t.Fatalf("%x became %x", b, w.Bytes())
			}
		}
		_, _, _ = readAnswer(bytes.NewReader(b))
		if st, err := readStatus(bytes.NewReader(b)); err == nil && st.name == "" {
			t.Fatal("no name")
		}
	})
}

type pipeTo struct {
	io.Writer
	net.Conn
}

func (p pipeTo) Write(b []byte) (int, error) { return p.Writer.Write(b) }

func TestLoopbackAddr(t *testing.T) {
	seen := make(map[netip.Addr]bool)
	for boot := range uint64(2000) {
		a := LoopbackAddr(boot + 1)
		if !a.IsLoopback() || a.As4()[3] == 0 || a.As4()[3] == 255 || a.As4()[1] == 0 {
			t.Fatalf("boot %d: %v", boot, a)
		}
		seen[a] = true
	}
	if len(seen) < 1998 {
		t.Errorf("2000 boot IDs have %d addresses", len(seen))
	}
}

func TestLogLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		l := newOlricLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
		for i := range 100 {
			l.Printf("[INFO] Moving DMap fragment: x (kind: Primary) on PartID: %d to y", i)
			l.Printf("[ERROR] Failed to move DMap fragment: x on PartID: %d to y: broken", i)
			l.Printf("2024/01/01 [WARN] memberlist: Refuting a suspect message (from: %d)", i)
			l.Printf("no level")
		}
		if got := strings.Count(out.String(), "\n"); got != 2 {
			t.Errorf("got %d lines:\n%s", got, out.String())
		}
		if !strings.Contains(out.String(), `level=WARN msg="Failed to move`) || !strings.Contains(out.String(), "level=INFO msg=\"2024/01/01 memberlist: Refuting") {
			t.Errorf("got:\n%s", out.String())
		}
		out.Reset()
		time.Sleep(logWindow)
		l.Printf("[ERROR] Failed to move DMap fragment: x on PartID: 7 to y: broken")
		if !strings.Contains(out.String(), "similar=99") {
			t.Errorf("got:\n%s", out.String())
		}
	})
}

func TestGossipKeys(t *testing.T) {
	one, err := newKeyring([][]byte{[]byte("a"), []byte("b")})
	if err != nil {
		t.Fatal(err)
	}
	two, err := newKeyring([][]byte{[]byte("b"), []byte("a")})
	if err != nil {
		t.Fatal(err)
	}
	if len(one.GetKeys()) != 2 || len(one.GetPrimaryKey()) != 32 {
		t.Fatalf("%d keys, the first of %d bytes", len(one.GetKeys()), len(one.GetPrimaryKey()))
	}
	if bytes.Equal(one.GetPrimaryKey(), two.GetPrimaryKey()) || !bytes.Equal(one.GetPrimaryKey(), two.GetKeys()[1]) {
		t.Error("the first secret is not the primary key")
	}
	if ring, err := newKeyring(nil); err != nil || ring != nil {
		t.Errorf("without secrets: %v, %v", ring, err)
	}
}

// Secrets are replaced while members run, in the steps that a rotation takes.
func TestSetSecrets(t *testing.T) {
	n := newTestNet(t)
	old, fresh := n.secret, []byte("a fresh secret")
	a, b := n.start(nil), n.start(nil)
	n.whole()
	for _, secrets := range [][][]byte{{old, fresh}, {fresh, old}, {fresh}} {
		for _, m := range []*testMember{a, b} {
			if err := m.SetSecrets(secrets); err != nil {
				t.Fatal(err)
			}
		}
	}
	n.secret = fresh
	c := n.start(nil)
	n.whole()
	if err := c.SetSecrets(nil); err == nil {
		t.Error("all secrets were taken away")
	}
	if keys := c.keyring.GetKeys(); len(keys) != 1 {
		t.Errorf("%d keys", len(keys))
	}
}

func TestConfigErrors(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"ClusterName": func(c *Config) { c.ClusterName = "" },
		"Gossip":      func(c *Config) { c.Gossip = nil },
		"Boot":        func(c *Config) { c.Boot = 0 },
		"Peers":       func(c *Config) { c.Peers = nil },
		"DialStream":  func(c *Config) { c.DialStream = nil },
		"MaxBytes":    func(c *Config) { c.MaxBytes = -1 },
		"Secrets[1]":  func(c *Config) { c.Secrets = [][]byte{{1}, {}} },
	} {
		c := Config{
			ClusterName: "x", Gossip: &Gossip{}, Boot: 1,
			Peers:      func() []Peer { return nil },
			DialStream: newTestNet(t).dialStream,
		}
		change(&c)
		if _, err := Start(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	if _, err := Listen("nonsense", ""); err == nil {
		t.Error("bind: no error")
	}
	g, err := Listen("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := Listen(g.Addr(), ""); err == nil {
		t.Error("a port in use: no error")
	}
}
