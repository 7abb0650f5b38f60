package kv

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// What a member held has both its copies on the others when it has left, and
// hardly anything of it was written entry by entry.
func TestHandOver(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	const count = 1000
	a, b, c := n.start(nil), n.start(nil), n.start(nil)
	n.whole()
	n.fill(c, count)
	if err := a.Delete(context.Background(), key(0)); err != nil {
		t.Fatal(err)
	}
	held := c.held()
	n.leave(c)
	for _, m := range []*testMember{a, b} {
		if got := m.held(); got != count {
			t.Errorf("member %d has %d of %d", m.boot, got, count)
		}
	}
	if st := c.Stats(); st.Copied != uint64(held) || st.Failed != 0 {
		t.Errorf("%d copied and %d not, of %d", st.Copied, st.Failed, held)
	}
	if _, ok, err := b.Get(context.Background(), key(0)); ok || err != nil {
		t.Errorf("what was deleted: %v, %v", ok, err)
	}
	if !n.has(b, 1) || !n.has(b, count-1) {
		t.Error("what was not deleted is missing")
	}
}

// A member takes what belongs to it, and keeps what it has where that is later.
func TestKeep(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	a := n.start(nil)
	in := a.current()
	ask := func(args ...string) string {
		out := answers{in: in}
		var b [][]byte
		for _, arg := range args {
			b = append(b, []byte(arg))
		}
		out.keep(b)
		return string(out.out)
	}
	expires := a.Now() + int64(time.Minute)
	entry := func(key, value string, version int64) string {
		return string(appendEntry(nil, newEnvelope(modeStored, KindValue, version, expires, key, []byte(value))))
	}
	get := func(key string) string {
		it, _, err := a.Get(context.Background(), key)
		if err != nil {
			t.Fatal(err)
		}
		return string(it.Value)
	}
	now := a.Now()
	if got := ask(roleOwner, entry("one", "new", now)+entry("two", "x", now)); got != "$2\r\n11\r\n" {
		t.Errorf("got %q", got)
	}
	if got := ask(roleOwner, entry("one", "old", now-1)); got != "$1\r\n1\r\n" || get("one") != "new" || get("two") != "x" {
		t.Errorf("got %q, then %q and %q", got, get("one"), get("two"))
	}
	if got := ask(roleBackup, entry("one", "newer", now+1)); got != "$1\r\n0\r\n" || get("one") != "new" {
		t.Errorf("who is alone backs nothing up: got %q, then %q", got, get("one"))
	}
	if got := ask(roleOwner, ""); got != "$0\r\n\r\n" {
		t.Errorf("nothing: got %q", got)
	}
	whole := entry("bad", "x", now)
	for _, args := range [][]string{
		{}, {roleOwner}, {"king", whole}, {roleOwner, whole, ""},
		{roleOwner, whole[:3]}, {roleOwner, whole[:len(whole)-1]}, {roleOwner, "\xff\xff\xff\xff" + whole[4:]},
		{roleOwner, string(appendEntry(nil, newEnvelope(modeWrite, KindValue, now, expires, "bad", nil)))},
	} {
		if got := ask(args...); !strings.HasPrefix(got, "-ERR ") {
			t.Errorf("%.40q: got %q", args, got)
		}
	}
	if got := get("bad"); got != "" {
		t.Errorf("%q was stored", got)
	}
	in.retired.Store(true)
	defer in.retired.Store(false)
	if got := ask(roleOwner, whole); !strings.HasPrefix(got, "-ERR ") {
		t.Errorf("a member that leaves: got %q", got)
	}
}

func TestKeeper(t *testing.T) {
	for reply, want := range map[string]string{
		"$3\r\n101\r\n": "101",
		"$2\r\n11\r\n":  "",
		"$3\r\n101xx":   "",
		"$3\r\n10":      "",
		"-ERR unknown command 'peerlimit.keep'\r\n": "", // a member of the release before
		"": "",
	} {
		here, there := net.Pipe()
		k := keeper{conn: here, r: bufio.NewReader(here), role: roleOwner}
		asked := make(chan []byte, 1)
		go func() {
			var c command
			_ = c.read(bufio.NewReader(there))
			asked <- bytes.Join(c.args, []byte(" "))
			_, _ = io.WriteString(there, reply)
			_ = there.Close()
		}()
		got, err := k.send([]byte("entries"), 3)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", reply, got, err)
		}
		if got := string(<-asked); got != "peerlimit.keep owner entries" {
			t.Errorf("asked %q", got)
		}
		_ = here.Close()
	}
}

// What can't be sent is left.
func TestSendTo(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	a := n.start(nil)
	e := newEnvelope(modeStored, KindValue, a.Now(), a.Now()+int64(time.Minute), "k", nil)
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	for name, ctx := range map[string]context.Context{"": context.Background(), "127.9.9.9:1": context.Background(), a.current().name: stopped} {
		rest := a.sendAll(ctx, roleOwner, map[string]entrySet{name: {1: e}})
		if len(rest) != 1 {
			t.Errorf("%q: %d left", name, len(rest))
		}
	}
}

func FuzzNextEntry(f *testing.F) {
	f.Add(appendEntry(nil, newEnvelope(modeStored, KindValue, 7, 1, "k", []byte("v"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		for rest := b; len(rest) > 0; {
			e, next, err := nextEntry(rest)
			if err != nil {
				return
			}
			if again := appendEntry(nil, e); !bytes.Equal(again, rest[:len(again)]) || len(again)+len(next) != len(rest) {
				t.Fatalf("%x became %x", rest, again)
			}
			rest = next
		}
	})
}
