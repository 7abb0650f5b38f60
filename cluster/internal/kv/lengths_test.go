package kv

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// lengthsConn is a connection to a member that answers with reply.
func lengthsConn(t *testing.T, reply string) *olricConn {
	here, there := net.Pipe()
	t.Cleanup(func() { _ = here.Close() })
	go func() {
		defer there.Close()
		if _, err := io.ReadFull(there, make([]byte, len(askLengths))); err != nil {
			return
		}
		for part := range strings.SplitSeq(reply, "|") { // piece by piece
			if _, err := io.WriteString(there, part); err != nil {
				return
			}
		}
	}()
	return &olricConn{Conn: here, in: &instance{}, name: "127.0.0.1:1"}
}

func TestLengths(t *testing.T) {
	all := bytes.Repeat([]byte("0"), 2*partitionCount)
	all[3], all[4], all[partitionCount+3] = hasSome, hasUnknown, hasUnknown
	c := lengthsConn(t, "$2|54\r|\n"+string(all[:100])+"|"+string(all[100:])+"|\r\n")
	if _, known := c.in.lengthFrom(c.name, 3); known {
		t.Error("known before it was asked for")
	}
	if err := c.fetchLengths(); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]string{0: ":0\r\n", 3: ":1\r\n", 4: "", partitionCount + 3: "", 2*partitionCount - 1: ":0\r\n"} {
		if got, known := c.in.lengthFrom(c.name, at); !known || string(got) != want {
			t.Errorf("%d: got %q, %v", at, got, known)
		}
	}
	if _, known := c.in.lengthFrom("127.0.0.1:2", 3); known {
		t.Error("another member's are known")
	}

	// A member of the release before does not know the question, and is asked
	// olric's one by one.
	c = lengthsConn(t, "-ERR unknown| command 'peerlimit.lengths'\r\n")
	if err := c.fetchLengths(); err != nil {
		t.Fatal(err)
	}
	if got, known := c.in.lengthFrom(c.name, 3); !known || got != nil {
		t.Errorf("got %q, %v", got, known)
	}
	if left := time.Until(c.in.lengths[c.name].until); left < lengthsRefusedFor/2 {
		t.Errorf("asked again in %v", left)
	}

	for _, bad := range []string{
		"", "$", "+OK\r\n", "$253\r\n" + string(all[1:]) + "\r\n  ", "$254\r\n" + string(all), "$254\r\n" + string(all) + "xx",
		"-" + strings.Repeat("x", 5000), ":1\r\n", "*1\r\n",
	} {
		c = lengthsConn(t, bad)
		if err := c.fetchLengths(); err == nil {
			t.Errorf("%.20q is taken", bad)
		}
		if c.in.lengths[c.name].has != nil {
			t.Errorf("%.20q: kept", bad)
		}
	}
}
