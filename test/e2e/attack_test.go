//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// attack is something that a stranger on the network may try on a member.
type attack struct {
	name string
	try  func(t *testing.T, m *Member) (happened string)
}

// mostMemory is what a member may have taken at its highest, in bytes, whatever
// strangers try.
const mostMemory = 400 << 20

// Whatever a stranger on the network tries on each port of a member, its clients
// notice nothing: no call fails, memory stays bounded, and what was refused is
// counted. The table says what was tried and what came of it.
func TestAttacks(t *testing.T) {
	needSoak(t, soakShort)
	const token = "the-token-that-clients-have"
	secrets.add(token)
	tokens := secretFile(t, token)
	cluster := NewCluster(t, 3, MemberOptions{Token: token, Args: []string{
		"--secret-file=" + secretFile(t, oneSecret), "--api-token-file=" + tokens, "--log-level=info",
	}})
	members := cluster.Members()
	m, leaver := members[0], members[2]
	packets := capture(t, m.Gossip, 40)
	control := StartControl(t)
	load := StartLoad(t, members[:2], LoadOptions{Callers: 2, Pause: 2 * time.Millisecond, Body: func(n uint64) []byte {
		return Check{Key: fmt.Sprint("k", n%100), Limit: 1_000_000, Period: "24h"}.Body()
	}})
	load.AwaitEnded(500)
	calm := Span{time.Now(), time.Now().Add(time.Second)}
	time.Sleep(time.Second) // the figures of a second without attacks
	httpBefore, framesBefore := m.httpRefused(t), m.refused(t)

	const many = 10_000
	var rows []string
	var spans []Span
	for _, a := range []attack{
		{"random bytes to each port over TCP", randomBytes},
		{"random packets to each port over UDP", randomPackets},
		{"gossip of a member, replayed", func(t *testing.T, m *Member) string { return replay(t, m, packets) }},
		{"gossip of a member that has left, replayed", func(t *testing.T, m *Member) string {
			cluster.Forget(leaver)
			leaver.Leave()
			cluster.AwaitOneRing(startTimeout)
			return replay(t, m, packets)
		}},
		{"frames of 4 GiB to each port between members", hugeFrames},
		{"oversized HTTP", oversizedHTTP},
		{"smuggled requests", smuggle},
		{"slow-loris on HTTP", slowLoris},
		{"idle connections to HTTP", func(t *testing.T, m *Member) string { return idle(t, m, m.HTTP, many) }},
		{"idle connections to the peer port", func(t *testing.T, m *Member) string { return idle(t, m, m.Peer, many) }},
		{"idle connections to the gossip port", func(t *testing.T, m *Member) string { return idle(t, m, m.Gossip, many/5) }},
		{"idle connections to the kv port", func(t *testing.T, m *Member) string { return idle(t, m, m.KV, many/5) }},
	} {
		start := time.Now()
		happened := a.try(t, m)
		load.AwaitEnded(100)
		spans = append(spans, Span{start, time.Now()})
		rows = append(rows, fmt.Sprintf("%s\t%s\t%d MiB", a.name, happened, m.memory(t, "VmRSS")>>20))
		require.NoError(t, m.Ready(), a.name)
	}
	Eventually(t, 20*time.Second, cluster.OneRing)
	report := load.Stop()

	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "tried\twhat happened\tresident\tdecisions/s\tp99")
	fmt.Fprintf(w, "nothing\t\t\t%s\n", report.during(calm))
	for i, row := range rows {
		fmt.Fprintf(w, "%s\t%s\n", row, report.during(spans[i]))
	}
	require.NoError(t, w.Flush())
	t.Logf("what was tried:\n%s", table.String())
	httpAfter, framesAfter := m.httpRefused(t), m.refused(t)
	t.Logf("refused by the HTTP API: %v; between members: %v; the highest memory: %d MiB", httpAfter, framesAfter, m.memory(t, "VmHWM")>>20)

	for _, c := range report.Failures() {
		t.Error(c)
	}
	assert.Zero(t, report.Counts().Denied)
	t.Log(control.Summary())
	for _, c := range report.Calls {
		if c.Degraded && !control.Excuses(c.Span()) {
			t.Errorf("degraded while the machine was well: %v", c)
		}
	}
	assert.Less(t, m.memory(t, "VmHWM"), int64(mostMemory))
	for _, reason := range []string{"unreadable", "token"} {
		assert.Greater(t, httpAfter[reason], httpBefore[reason], reason)
	}
	assert.Greater(t, framesAfter["secret"], framesBefore["secret"])
	if many > 4096 { // more than the HTTP API keeps
		assert.Greater(t, httpAfter["crowded"], httpBefore["crowded"])
	}
	assert.Greater(t, framesAfter["crowded"]+framesAfter["timeout"], framesBefore["crowded"]+framesBefore["timeout"])
}

// during is the rate and the 99th percentile of the calls that began in s, as
// two cells of the table.
func (r *LoadReport) during(s Span) string {
	within := &LoadReport{}
	for _, c := range r.Calls {
		if !c.Start.Before(s.Start) && c.Start.Before(s.End) {
			within.Calls = append(within.Calls, c)
		}
	}
	return fmt.Sprintf("%.0f\t%s", float64(len(within.Calls))/s.End.Sub(s.Start).Seconds(), within.Percentile(0.99).Round(10*time.Microsecond))
}

// memory is a figure of /proc/PID/status in bytes.
func (m *Member) memory(t testing.TB, name string) (n int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.PID()))
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(text), name+":")
	require.True(t, found, name)
	n, err = strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	require.NoError(t, err)
	return n << 10
}

// httpRefused is what the HTTP API has refused, by reason.
func (m *Member) httpRefused(t testing.TB) map[string]float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := m.Scrape(ctx)
	require.NoError(t, err)
	refused := map[string]float64{}
	for _, reason := range []string{"crowded", "unreadable", "host", "origin", "token"} {
		refused[reason] = s.Sum("http_refused_total", "reason="+reason)
	}
	return refused
}

// capture listens to loopback until it has n packets to an address, over UDP.
func capture(t *testing.T, to string, n int) (packets [][]byte) {
	t.Helper()
	_, text, err := net.SplitHostPort(to)
	require.NoError(t, err)
	port, err := strconv.ParseUint(text, 10, 16)
	require.NoError(t, err)
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all&0xffff)
	if err != nil {
		t.Logf("no gossip is replayed: %v", err)
		return nil
	}
	defer unix.Close(socket)
	lo, err := net.InterfaceByName("lo")
	require.NoError(t, err)
	require.NoError(t, unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: all & 0xffff, Ifindex: lo.Index}))
	require.NoError(t, unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}))
	buffer := make([]byte, 64<<10)
	for end := time.Now().Add(20 * time.Second); len(packets) < n && time.Now().Before(end); {
		size, _, err := unix.Recvfrom(socket, buffer, 0)
		const ip, udp = 20, 8
		if err != nil || size < ip+udp || buffer[0] != 0x45 || buffer[9] != unix.IPPROTO_UDP {
			continue
		}
		if uint64(binary.BigEndian.Uint16(buffer[ip+2:])) == port {
			packets = append(packets, bytes.Clone(buffer[ip+udp:size]))
		}
	}
	require.NotEmpty(t, packets, "no gossip in 20 s")
	return packets
}

// replay sends packets again and again, from another port.
func replay(t *testing.T, m *Member, packets [][]byte) string {
	if len(packets) == 0 {
		return "skipped: packets can't be captured here"
	}
	conn, err := net.Dial("udp", m.Gossip)
	require.NoError(t, err)
	defer conn.Close()
	const sent = 2000
	for i := range sent {
		_, _ = conn.Write(packets[i%len(packets)])
	}
	return fmt.Sprintf("%d packets sent (%d distinct), members as before", sent, len(packets))
}

func randomBytes(t *testing.T, m *Member) string {
	noise := make([]byte, 8<<10)
	_, _ = rand.Read(noise)
	const each = 50
	for _, port := range []string{m.Gossip, m.Peer, m.KV, m.HTTP} {
		var wait sync.WaitGroup
		for range each {
			wait.Go(func() { knock(t, port, noise) })
		}
		wait.Wait()
	}
	return fmt.Sprintf("4 × %d connections closed", each)
}

func randomPackets(t *testing.T, m *Member) string {
	const each = 1000
	for _, port := range []string{m.Gossip, m.KV} {
		conn, err := net.Dial("udp", port)
		require.NoError(t, err)
		for i := range each {
			noise := make([]byte, 1+i*60%60_000)
			_, _ = rand.Read(noise)
			_, _ = conn.Write(noise)
		}
		_ = conn.Close()
	}
	return fmt.Sprintf("2 × %d packets of up to 60 kB sent", each)
}

// hugeFrames announces more than there is memory for, and sends some of it.
func hugeFrames(t *testing.T, m *Member) string {
	zeros := make([]byte, 64<<10)
	var wait sync.WaitGroup
	var closed atomic.Int64
	for _, port := range []string{m.Gossip, m.KV, m.Peer} {
		for range 10 {
			wait.Go(func() {
				conn, err := net.Dial("tcp", port)
				if !assert.NoError(t, err) {
					return
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				// memberlist's encrypted message has type 10 and a length.
				_, _ = conn.Write([]byte{10, 0xff, 0xff, 0xff, 0xff})
				for range 320 { // 20 MiB
					if _, err := conn.Write(zeros); err != nil {
						break
					}
				}
				_, err = io.Copy(io.Discard, conn)
				if err, ok := err.(net.Error); ok && err.Timeout() {
					t.Errorf("a connection that announced 4 GiB to %s was not closed", port)
					return
				}
				closed.Add(1)
			})
		}
	}
	wait.Wait()
	return fmt.Sprintf("%d of 30 connections closed", closed.Load())
}

// oversizedHTTP sends one too large part of a request at a time, with a token.
func oversizedHTTP(t *testing.T, m *Member) string {
	body := func(s string) string {
		return fmt.Sprintf("POST /v1/ratelimit/check HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", m.token, len(s), s)
	}
	statuses := map[int]int{}
	for name, request := range map[string]string{
		"a header":  "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"headers":   "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 100_000) + "\r\n",
		"a path":    "GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"a body":    body(`{"key":"k","limit":1,"period":"1s"}` + strings.Repeat(" ", 2<<20)),
		"a key":     body(`{"key":"` + strings.Repeat("k", 1<<19) + `","limit":1,"period":"1s"}`),
		"nesting":   body(strings.Repeat(`{"key":`, 100_000)),
		"an array":  body(`{"checks":[` + strings.Repeat(`{"key":"k","limit":1,"period":"1s"},`, 10_000) + `{}]}`),
		"a number":  body(`{"key":"k","limit":` + strings.Repeat("9", 1<<19) + `,"period":"1s"}`),
		"a value":   "PUT /v1/cache/k?ttl=1m HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + m.token + "\r\nContent-Length: 9999999999\r\n\r\n" + strings.Repeat("v", 2<<20),
		"a token":   "GET /v1/cluster HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + strings.Repeat("x", 15<<10) + "\r\n\r\n",
		"a cookie":  "GET / HTTP/1.1\r\nHost: x\r\nCookie: " + strings.Repeat("a=b;", 10_000) + "\r\n\r\n",
		"a version": "GET / HTTP/1." + strings.Repeat("1", 1<<20) + "\r\n\r\n",
	} {
		answers := exchange(t, m, request)
		if assert.LessOrEqual(t, len(answers), 1, name) && len(answers) == 1 {
			assert.GreaterOrEqual(t, answers[0], 400, name)
			assert.Less(t, answers[0], 500, name)
			statuses[answers[0]]++
		}
	}
	return fmt.Sprintf("12 requests refused, by status: %v", statuses)
}

// exchange sends text and returns the statuses of all answers that came until
// the member closed the connection, or was silent for a second.
func exchange(t *testing.T, m *Member, text string) (statuses []int) {
	t.Helper()
	conn, err := net.Dial("tcp", m.HTTP)
	require.NoError(t, err)
	defer conn.Close()
	sent := make(chan struct{})
	go func() { // the member may answer before it has read all
		defer close(sent)
		_, _ = io.WriteString(conn, text)
	}()
	defer func() { _ = conn.Close(); <-sent }()
	reader := bufio.NewReader(conn)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if len(statuses) == 0 {
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return statuses
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		statuses = append(statuses, response.StatusCode)
	}
}

// smuggle sends requests whose end is a matter of opinion, with a second one
// inside. A proxy in front may hold the whole for one request; so the member must
// answer no more than one, or refuse.
func smuggle(t *testing.T, m *Member) string {
	const check = `{"key":"k","limit":1000000,"period":"24h"}`
	inner := "GET /v1/ratelimit HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + m.token + "\r\n\r\n"
	head := "POST /v1/ratelimit/check HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + m.token + "\r\n"
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(check), check)
	length := func(n int) string { return fmt.Sprintf("Content-Length: %d\r\n", n) }
	var told []string
	for _, c := range []struct{ name, request string }{
		{"CL.TE", head + length(len(chunked)+len(inner)) + "Transfer-Encoding: chunked\r\n\r\n" + chunked + inner},
		{"TE.CL", head + "Transfer-Encoding: chunked\r\n" + length(4) + "\r\n" + chunked + inner},
		{"two lengths", head + length(len(check)) + length(len(check)+len(inner)) + "\r\n" + check + inner},
		{"lengths in a list", head + fmt.Sprintf("Content-Length: %d, %d\r\n\r\n", len(check), len(check)+1) + check + inner},
		{"a signed length", head + fmt.Sprintf("Content-Length: +%d\r\n\r\n", len(check)) + check + inner},
		{"folded TE", head + length(len(chunked)+len(inner)) + "Transfer-Encoding:\r\n chunked\r\n\r\n" + chunked + inner},
		{"a space before the colon", head + "Transfer-Encoding : chunked\r\n" + length(len(chunked)+len(inner)) + "\r\n" + chunked + inner},
		{"TE twice", head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + chunked + inner},
		{"an unknown TE", head + "Transfer-Encoding: xchunked\r\n\r\n" + chunked + inner},
		{"a bare CR", head + "X: a\rTransfer-Encoding: chunked\r\n" + length(len(check)) + "\r\n" + check + inner},
		{"two hosts", "GET /v1/ratelimit HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + inner},
		{"a bad chunk", head + "Transfer-Encoding: chunked\r\n\r\n" + "-1\r\n" + inner},
	} {
		answers := exchange(t, m, c.request)
		if assert.NotEmpty(t, answers, c.name) {
			assert.Len(t, answers, 1, "%s: a second request was answered", c.name)
			told = append(told, fmt.Sprintf("%s %d", c.name, answers[0]))
		}
	}
	return "one answer each: " + strings.Join(told, ", ")
}

// slowLoris sends a header byte by byte until it is hung up.
func slowLoris(t *testing.T, m *Member) string {
	const n = 200
	var wait sync.WaitGroup
	var closed atomic.Int64
	for range n {
		wait.Go(func() {
			conn, err := net.Dial("tcp", m.HTTP)
			if !assert.NoError(t, err) {
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nX: ")
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
				if _, err := conn.Write([]byte("x")); err != nil {
					closed.Add(1)
					return
				}
				_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
				if _, err := conn.Read(make([]byte, 256)); err == io.EOF {
					closed.Add(1)
					return
				}
			}
		})
	}
	wait.Wait()
	assert.EqualValues(t, n, closed.Load())
	return fmt.Sprintf("%d of %d connections closed", closed.Load(), n)
}

// idle opens connections that say nothing, as many as this process may, and holds
// them for two seconds. Newcomers with a token are served meanwhile.
func idle(t *testing.T, m *Member, port string, n int) string {
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	if limit.Cur < limit.Max {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
	n = min(n, int(min(limit.Cur, 1<<20))-1000) // the tests have files too
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	refused := 0
	for range n {
		c, err := net.DialTimeout("tcp", port, 2*time.Second)
		if err != nil {
			refused++
			continue
		}
		conns = append(conns, c)
	}
	newcomer := &Member{t: t, HTTP: m.HTTP, token: m.token, client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}}
	defer newcomer.client.CloseIdleConnections()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		status, _, _, err := newcomer.Request(ctx, http.MethodGet, "/v1/ratelimit", nil)
		cancel()
		if assert.NoError(t, err, "a newcomer") {
			assert.Equal(t, http.StatusOK, status)
		}
		newcomer.client.CloseIdleConnections()
	}
	closed := 0
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Microsecond))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
				closed++
			}
		}
	}
	return fmt.Sprintf("%d opened, %d not accepted, %d hung up within 2 s; newcomers served", len(conns), refused, closed)
}
