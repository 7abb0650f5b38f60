package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func (h *handler) refusedFor(reason string) float64 {
	return testutil.ToFloat64(h.refusals.WithLabelValues(reason))
}

// plainConn is a connection that says nothing.
type plainConn struct {
	net.Conn
	closed bool
}

func (c *plainConn) Close() error { c.closed = true; return nil }

func TestTheLongestSilentConnectionMakesRoom(t *testing.T) {
	crowded := 0
	s := newConns(3, func(reason string) { assert.Equal(t, refusedCrowd, reason); crowded++ })
	arrive := func() *plainConn {
		c := new(plainConn)
		s.follow(c, http.StateNew)
		return c
	}
	answer := func(c *plainConn, meanwhile func()) {
		r, err := http.NewRequestWithContext(s.context(t.Context(), c), "GET", "/", nil)
		require.NoError(t, err)
		s.follow(c, http.StateActive)
		s.handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { meanwhile() })).ServeHTTP(nil, r)
		s.follow(c, http.StateIdle)
	}
	nothing := func() {}
	client, other := arrive(), arrive()
	answer(client, nothing)
	answer(other, nothing)
	strangers := []*plainConn{arrive(), arrive(), arrive()}
	assert.False(t, client.closed, "a client that is idle went before a stranger")
	assert.True(t, strangers[0].closed)
	assert.True(t, strangers[1].closed)
	assert.Equal(t, 2, crowded)
	s.follow(strangers[0], http.StateClosed) // what the server says of it then
	answer(strangers[2], nothing)
	answer(client, nothing)
	last := arrive()
	assert.True(t, other.closed, "it was idle for longest")
	assert.False(t, client.closed)
	answer(last, func() {
		answer(client, func() {
			answer(strangers[2], func() {
				assert.True(t, arrive().closed, "all others are being answered")
			})
		})
	})
	assert.False(t, last.closed || client.closed || strangers[2].closed)
	for _, c := range []*plainConn{last, client, strangers[2]} {
		s.follow(c, http.StateClosed)
	}
	assert.Empty(t, s.known)
	assert.Zero(t, s.strangers.Len()+s.idle.Len())
}

func TestConnectionsThatMakeNoSenseAreCounted(t *testing.T) {
	h := testAPI(t, &tokens{})
	s, err := listenHTTP(t.Context(), "127.0.0.1:0", h, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	for _, text := range []string{
		"\x16\x03\x01", "GET / HTTP/9.9\r\n\r\n", "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
	} {
		before := h.refusedFor(refusedUnreadable)
		conn, err := net.Dial("tcp", s.addr())
		require.NoError(t, err)
		_, err = io.WriteString(conn, text)
		require.NoError(t, err)
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		_, err = io.ReadAll(conn)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.Eventually(t, func() bool { return h.refusedFor(refusedUnreadable) == before+1 }, 10*time.Second, time.Millisecond, "%q", text)
	}
	conn, err := net.Dial("tcp", s.addr()) // one that says nothing is none of them
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	assert.EqualValues(t, 3, h.refusedFor(refusedUnreadable))
}

// A proxy in front may take what follows a chunked request for part of it.
func TestNothingFollowsAChunkedRequest(t *testing.T) {
	s, err := listenHTTP(t.Context(), "127.0.0.1:0", testAPI(t, &tokens{}), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	conn, err := net.Dial("tcp", s.addr())
	require.NoError(t, err)
	defer conn.Close()
	const follows = "GET /v1/ratelimit HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
	_, err = fmt.Fprintf(conn, "POST /v1/ratelimit/check HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n%s",
		len(validCheck), validCheck, follows)
	require.NoError(t, err)
	answers, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Equal(t, 1, strings.Count(string(answers), "HTTP/1.1 "), "%s", answers)
	assert.Contains(t, string(answers), "HTTP/1.1 200 OK")
	assert.Contains(t, string(answers), "Connection: close")
}

func FuzzOwnHost(f *testing.F) {
	f.Add("127.0.0.1:8080")
	f.Add("[::1%25lo]:1")
	f.Add("localhost")
	f.Add("rebound.example")
	f.Fuzz(func(t *testing.T, host string) {
		_ = isOwnHost(host) // must not panic
		if strings.ContainsAny(host, ":%[]") {
			return // of an address: nothing that DNS could point elsewhere
		}
		for _, port := range []string{"", ":80"} {
			if isOwnHost(host + ".example" + port) {
				t.Errorf("%q under a name of others is ours", host)
			}
		}
	})
}

func TestWithoutTokensOnlyThisMachinesNamesAreAnswered(t *testing.T) {
	for host, own := range map[string]bool{
		"": true, "127.0.0.1": true, "127.0.0.1:8080": true, "[::1]:8080": true, "[::1]": true, "::1": true, "192.0.2.1": true,
		"localhost": true, "LOCALHOST:8080": true,
		"rebound.example": false, "rebound.example:8080": false, "127.0.0.1.example": false, "localhost.example": false,
		"localhost.": false, "0x7f.1": false, "127.1": false, "[localhost": true, "127.0.0.1:1:2": false,
	} {
		assert.Equal(t, own, isOwnHost(host), "%q", host)
	}
	status := func(h *handler, host string) int {
		s, err := listenHTTP(t.Context(), "127.0.0.1:0", h, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		defer func() { require.NoError(t, s.close()) }()
		conn, err := net.Dial("tcp", s.addr())
		require.NoError(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, "GET /v1/ratelimit HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\nAuthorization: Bearer some-token-of-ours\r\n\r\n")
		require.NoError(t, err)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		defer response.Body.Close()
		return response.StatusCode
	}
	h := testAPI(t, &tokens{})
	assert.Equal(t, 421, status(h, "rebound.example:8080"))
	assert.EqualValues(t, 1, h.refusedFor(refusedHost))
	assert.Equal(t, 200, status(h, "localhost:8080"))
	assert.Equal(t, 200, status(h, "127.0.0.1:8080"))
	assert.EqualValues(t, 1, h.refusedFor(refusedHost))

	// A page from elsewhere does not have the token, so any name will do.
	h = testAPI(t, &tokens{users: hashTokens([]string{"some-token-of-ours"})})
	assert.Equal(t, 200, status(h, "limits.example"))
	assert.Zero(t, h.refusedFor(refusedToken))
	assert.Equal(t, 401, ask(h, "GET", "/v1/ratelimit", "").status)
	assert.EqualValues(t, 1, h.refusedFor(refusedToken))
}
