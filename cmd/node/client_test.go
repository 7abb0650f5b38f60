package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func testServer(t *testing.T, h http.Handler) (url string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(func() {
		server.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return server.URL
}

func TestCheckTellsByItsExitCode(t *testing.T) {
	const token = "user-token-0123456789"
	url := testServer(t, testAPI(t, &tokens{users: hashTokens([]string{token})}))
	file := write(t, "# tokens\n"+token+"\n")
	check := func(more ...string) (int, string, string) {
		return runNode(t, append([]string{"check", "user:1", "--limit", "2", "--period", "24h",
			"--algorithm", "fixed-window", "--http", url, "--api-token-file", file}, more...)...)
	}
	code, stdout, stderr := check()
	assert.Equal(t, exitDone, code, stderr)
	assert.Equal(t, "allowed: 1 of 2 remaining, full again after 24h0m0s\n", stdout)

	code, stdout, _ = check("--json")
	assert.Equal(t, exitDone, code)
	var d decision
	require.NoError(t, json.Unmarshal([]byte(stdout), &d))
	assert.True(t, d.Allowed)

	code, stdout, stderr = check()
	assert.Equal(t, exitDenied, code)
	assert.Contains(t, stdout, "denied: 0 of 2 remaining, retry after ")
	assert.Empty(t, stderr)

	code, _, stderr = check("--cost", "3")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, stderr, "--cost: must be at most")
	code, _, stderr = check("--limit", "0", "--period", "0s")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, stderr, "--limit: must be from 1 to 9007199254740992; --period: must be from")
	code, _, stderr = check("--algorithm", "leaky")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, stderr, "--algorithm: must be token-bucket")

	code, _, stderr = check("--api-token-file", write(t, "another-token-0123\n"))
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, stderr, "403 Forbidden")
	assert.NotContains(t, stderr, "another-token")
}

func TestStatusShowsWhatTheMemberSees(t *testing.T) {
	mux := http.NewServeMux()
	const view = `{"name":"shop","self":"m1","members":[
		{"name":"m1","state":"alive","zone":"a","version":"v1","peer":"127.0.0.1:1","owned_slots":9000},
		{"name":"m2","state":"draining","zone":"","version":"","peer":"127.0.0.1:2","owned_slots":7384}],
		"ring":{"version":"00ff","slots":16384},"breakers":{"m2":"open","m3":"half-open"},
		"kv":{"state":"up","breaker":"closed"},"uptime_ms":61000,"later":{"x":1},"ready":true,
		"possession":{"slots":8999,"unprotected":5,"takeovers":2,"moves":7,"merges":1,"waiting":3}}`
	mux.HandleFunc("GET /v1/cluster", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, view) })
	mux.HandleFunc("GET /v1/ratelimit", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"keys":42,"here":40,"partial":true}`)
	})
	url := testServer(t, mux)

	code, stdout, stderr := runNode(t, "status", "--http", url)
	require.Equal(t, exitDone, code, stderr)
	for _, want := range []string{"cluster shop, seen by m1, up 1m1s", "ring 00ff of 16384 slots, at least 42 keys held, kv up (breaker closed)",
		"this member serves 8999 slots, 5 without a full copy elsewhere; 2 taken over, 7 moved, 1 merges; 3 operations wait",
		"MEMBER", "m1      alive     9000   self", "m2      draining  7384   open", "breaker of m3, which is no member: half-open"} {
		assert.Contains(t, stdout, want)
	}
	code, stdout, _ = runNode(t, "status", "--http", url, "--json")
	assert.Equal(t, exitDone, code)
	assert.JSONEq(t, `{"cluster":`+view+`,"keys":42,"partial":true}`, stdout)
}

func TestNobodyThereIsOneLine(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	url := "http://" + listener.Addr().String()
	require.NoError(t, listener.Close())
	for _, args := range []string{"status", "check k --limit 1 --period 1s"} {
		code, stdout, stderr := runNode(t, append(strings.Fields(args), "--http", url)...)
		assert.Equal(t, exitFailed, code)
		assert.Empty(t, stdout)
		assert.Equal(t, 1, strings.Count(stderr, "\n"))
		assert.Contains(t, stderr, url)
		assert.Contains(t, stderr, "refused")
	}
}

func TestReadyLine(t *testing.T) {
	fields, err := parseReady(readyLine("127.0.0.1:1", "[::1]:2", "off", "127.0.0.1:4"))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"gossip": "127.0.0.1:1", "peer": "[::1]:2", "kv": "off", "http": "127.0.0.1:4"}, fields)
	for _, bad := range []string{"", "panic: x", "ready", "ready gossip=a peer=b kv=c", "ready gossip=a peer=b kv=c http=", "ready gossip"} {
		_, err := parseReady(bad)
		assert.Error(t, err, bad)
	}
	_, err = parseReady("ready gossip=a peer=b kv=c http=d resp=e")
	assert.NoError(t, err, "a later version may say more")
}

func TestServerEndsWhatIsUnderWayAndTakesNothingNew(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := newHandler(&tokens{}, nil)
	h.open([]route{{"GET /slow", forUsers, func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		writeJSON(w, 200, []byte("{}"))
	}}})
	s, err := listenHTTP(t.Context(), "127.0.0.1:0", h, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	answered := make(chan int)
	go func() {
		response, err := client.Get("http://" + s.addr() + "/slow")
		if err != nil {
			answered <- 0
			return
		}
		_ = response.Body.Close()
		answered <- response.StatusCode
	}()
	<-entered
	silent, err := net.Dial("tcp", s.addr()) // dialed in advance and never used
	require.NoError(t, err)
	defer silent.Close()
	stopped := make(chan error)
	go func() { stopped <- s.shutdown(context.Background(), 0) }()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", s.addr())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, 5*time.Second, time.Millisecond, "it still accepts connections")
	close(leave)
	start := time.Now()
	assert.Equal(t, 200, <-answered)
	assert.NoError(t, <-stopped)
	assert.Less(t, time.Since(start), 3*time.Second, "it waited for a connection that says nothing")
}

func TestServerRefusesPagesFromElsewhere(t *testing.T) {
	s, err := listenHTTP(t.Context(), "127.0.0.1:0", testAPI(t, &tokens{}), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	post := func(header, value string) int {
		request, err := http.NewRequest("POST", "http://"+s.addr()+"/v1/ratelimit/check", strings.NewReader(validCheck))
		require.NoError(t, err)
		if header != "" {
			request.Header.Set(header, value)
		}
		response, err := client.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		return response.StatusCode
	}
	assert.Equal(t, 403, post("Sec-Fetch-Site", "cross-site"))
	assert.Equal(t, 403, post("Origin", "http://elsewhere.example"))
	assert.Equal(t, 200, post("Origin", "http://"+s.addr()))
	assert.Equal(t, 200, post("", ""))
}

func TestServerGivesSlowClientsNoRest(t *testing.T) {
	t.Parallel() // it waits for the timeout
	s, err := listenHTTP(t.Context(), "127.0.0.1:0", testAPI(t, &tokens{}), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	conn, err := net.Dial("tcp", s.addr())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /v1/ratelimit/check HTTP/1.1\r\nHost: x\r\nX: ")
	require.NoError(t, err)
	start := time.Now()
	require.NoError(t, conn.SetReadDeadline(start.Add(headerTimeout+5*time.Second)))
	_, err = io.ReadAll(conn)
	require.NoError(t, err, "the connection was not closed")
	assert.GreaterOrEqual(t, time.Since(start), headerTimeout-time.Second)
}
