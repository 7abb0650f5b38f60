package kv

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What is answered here and what olric answers looks the same to a client.
func TestDirect(t *testing.T) {
	n := newTestNet(t)
	a, b := n.start(nil), n.start(nil)
	n.whole()
	n.fill(a, 50)
	_, conn, err := a.dialOlric(context.Background(), b.current().name)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	server, err := b.current().dialServer(context.Background(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for _, c := range []net.Conn{conn, server} {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	ours, theirs := bufio.NewReader(conn), bufio.NewReader(server)
	ask := func(c net.Conn, r *bufio.Reader, args ...string) string {
		t.Helper()
		var cmd, reply bytes.Buffer
		fmt.Fprintf(&cmd, "*%d\r\n", len(args))
		for _, arg := range args {
			fmt.Fprintf(&cmd, "$%d\r\n%s\r\n", len(arg), arg)
		}
		if _, err := c.Write(cmd.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := copyReply(&reply, r, 0); err != nil {
			t.Fatalf("%q: %v", args[0], err)
		}
		return reply.String()
	}
	expires := a.Now() + int64(time.Hour)
	entry := func(key, value string) string {
		return string(newEnvelope(modeWrite, KindValue, 0, expires, key, []byte(value)))
	}
	for _, args := range [][]string{
		{"hello", "2"},
		{"client", "setinfo", "LIB-NAME", "x"},
		{"dm.get", dmapName, digest(key(1)), "RW"},
		{"dm.get", dmapName, digest(key(2)), "RW"},
		{"dm.get", dmapName, digest(key(3))},
		{"dm.get", dmapName, digest("nobody"), "RW"},
		{"dm.get", "another", digest(key(1)), "RW"},
		{"dm.getentry", dmapName, digest(key(1)), "RC"},
		{"dm.getentry", dmapName, digest(key(2)), "RC"},
		{"dm.getentry", dmapName, digest(key(2))},
		{"dm.getentry", dmapName, digest("nobody"), "RC"},
		{"dm.put", dmapName, digest("k"), entry("k", "v"), "NX"},
		{"dm.put", dmapName, digest("k"), entry("k", "v")},
		{"dm.put", dmapName, digest("k")},
		{"ping"},
		{"nonsense", "1", "2"},
	} {
		x, y := ask(conn, ours, args...), ask(server, theirs, args...)
		if x != y {
			t.Errorf("%.60q:\ngot  %.100q\nwant %.100q", args, x, y)
		}
	}
	if err := a.Mark(context.Background(), "counter", time.Hour); err != nil {
		t.Fatal(err)
	}
	want := "-KEYFOUND key found\r\n"
	if got := ask(conn, ours, "dm.put", dmapName, digest("counter"), entry("counter", "v"), "NX"); got != want {
		t.Errorf("got %q", got)
	}
	// Olric's lengths, as one of none or some each and all of them at once.
	var all strings.Builder
	for _, kind := range [][]string{nil, {"RC"}} {
		for part := range partitionCount {
			args := append([]string{"internal.node.lengthofpart", strconv.Itoa(part)}, kind...)
			want := ":1\r\n"
			if ask(server, theirs, args...) == ":0\r\n" {
				want = ":0\r\n"
			}
			if got := ask(conn, ours, args...); got != want {
				t.Errorf("%q: got %q, want %q", args, got, want)
			}
			all.WriteByte(want[1])
		}
	}
	got := ask(conn, ours, allLengths)
	if unknown := strings.Count(got, "?"); unknown > partitionCount/4 {
		t.Errorf("%d of all lengths are unknown", unknown)
	}
	for i, r := range strings.TrimPrefix(got, "$254\r\n") {
		if i < all.Len() && r != '?' && byte(r) != all.String()[i] {
			t.Errorf("length %d: got %q, want %q", i, r, all.String()[i])
		}
	}
	if !strings.Contains(all.String(), "0") || !strings.Contains(all.String(), "1") {
		t.Errorf("a case is missing: %s", all.String())
	}
	for _, part := range []string{"-1", "127", "999999999", "x"} {
		if got := ask(conn, ours, "internal.node.lengthofpart", part); got != "-ERR no such partition\r\n" {
			t.Errorf("length of part %s: got %q", part, got)
		}
	}
	// What isn't RESP ends the stream.
	for _, bad := range []string{"GET x\r\n", "*9000000000000000000\r\n", "*1\r\n$99999999\r\n", "*0\r\n", "*1\r\n$1\r\nabc", strings.Repeat("*", 5000)} {
		_, conn, err := a.dialOlric(context.Background(), b.current().name)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, bad); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%.20q: %v", bad, err)
		}
		_ = conn.Close()
	}
}

func FuzzRESP(f *testing.F) {
	f.Add([]byte("*2\r\n$3\r\nabc\r\n$0\r\n\r\n"))
	f.Add([]byte("*1\r\n*2\r\n:1\r\n$-1\r\n"))
	f.Add([]byte("*9000000000000000000\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c command
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			if err := c.read(r); err != nil {
				break
			}
			if len(c.args) == 0 || len(c.args) > maxArgs || !bytes.Contains(b, c.raw) {
				t.Fatalf("%q: %q", b, c.raw)
			}
		}
		var w bytes.Buffer
		if err := copyReply(&w, bufio.NewReader(bytes.NewReader(b)), 0); err == nil && !bytes.HasPrefix(b, w.Bytes()) {
			t.Fatalf("%q became %q", b, w.Bytes())
		}
	})
}

func FuzzParseCall(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x01\x03abc*1\r\n$4\r\nping\r\n"))
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x01\xffabc"))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, name, raw, err := parseCall(b); err == nil && !bytes.HasSuffix(b, append([]byte(name), raw...)) {
			t.Fatalf("%q: name %q, command %q", b, name, raw)
		}
		p := pieces.Get().(*piece)
		if p.single(b) && !bytes.Equal(p.c.raw, b) {
			t.Fatalf("%q was read as %q", b, p.c.raw)
		}
		pieces.Put(p)
		if _, ok := callKind(b); ok && b[0] != '*' {
			t.Fatalf("%q is said to be a command", b)
		}
	})
}
