package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/ratelimit"
)

// spoofs are what a client sends to be taken for another one. The proxy adds its
// address to them. "%v" is the address of a victim.
var spoofs = []struct {
	name    string
	headers []string
	noHTTP  bool // refused before it comes to us
}{
	{name: "nothing"},
	{name: "a victim", headers: []string{"X-Forwarded-For: %v"}},
	{name: "several", headers: []string{"X-Forwarded-For: 198.51.100.1, %v, 198.51.100.2"}},
	{name: "a thousand", headers: []string{"X-Forwarded-For: " + strings.Repeat("%v, ", 999) + "%v"}},
	{name: "several lines", headers: []string{"X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: %v", "X-Forwarded-For: 198.51.100.2"}},
	{name: "in other letters", headers: []string{"x-fOrWaRdEd-fOr: %v"}},
	{name: "with an underscore", headers: []string{"X_Forwarded_For: %v"}},
	{name: "the proxy", headers: []string{"X-Forwarded-For: 127.0.0.1"}},
	{name: "a victim behind the proxy", headers: []string{"X-Forwarded-For: %v, 127.0.0.1, 127.0.0.1"}},
	{name: "a proxy, mapped", headers: []string{"X-Forwarded-For: %v, ::ffff:127.0.0.1"}},
	{name: "with a port", headers: []string{"X-Forwarded-For: %v:80"}},
	{name: "IPv6", headers: []string{"X-Forwarded-For: 2001:db8::1"}},
	{name: "IPv6 in brackets", headers: []string{"X-Forwarded-For: [2001:db8::1]:443"}},
	{name: "IPv6 with a zone", headers: []string{"X-Forwarded-For: fe80::1%%eth0"}},
	{name: "mapped IPv4", headers: []string{"X-Forwarded-For: ::ffff:%v"}},
	{name: "IPv4 in IPv6, other forms", headers: []string{"X-Forwarded-For: 64:ff9b::198.51.100.1, ::198.51.100.1, 2002:c633:6401::1"}},
	{name: "a number", headers: []string{"X-Forwarded-For: 3325256705"}},
	{name: "octal and hex", headers: []string{"X-Forwarded-For: 0306.063.0144.01, 0xc6336401"}},
	{name: "a name", headers: []string{"X-Forwarded-For: localhost"}},
	{name: "unknown", headers: []string{"X-Forwarded-For: unknown, _hidden, -"}},
	{name: "garbage", headers: []string{"X-Forwarded-For: <script>;,,\",';--\\,%%00,../../"}},
	{name: "beyond ASCII", headers: []string{"X-Forwarded-For: １９８．５１．１００．１, \xff\xfe"}},
	{name: "empty", headers: []string{"X-Forwarded-For:"}},
	{name: "commas", headers: []string{"X-Forwarded-For: ,,,%v,,,", "X-Forwarded-For: ,"}},
	{name: "long", headers: []string{"X-Forwarded-For: " + strings.Repeat("9", 8000)}},
	{name: "an open quote", headers: []string{`X-Forwarded-For: "%v`}},
	{name: "a header to drop", headers: []string{"Connection: X-Forwarded-For, Forwarded", "X-Forwarded-For: %v", "Forwarded: for=%v"}},
	{name: "other headers", headers: []string{"X-Real-IP: %v", "True-Client-IP: %v", "CF-Connecting-IP: %v", "X-Client-IP: %v", "X-Cluster-Client-IP: %v", "Client-IP: %v", "Via: 1.1 %v"}},
	{name: "Forwarded", headers: []string{"Forwarded: for=%v"}},
	{name: "Forwarded, several", headers: []string{"Forwarded: for=198.51.100.1, for=%v;proto=https;by=127.0.0.1"}},
	{name: "Forwarded, several lines", headers: []string{"Forwarded: for=198.51.100.1", "Forwarded: for=%v"}},
	{name: "Forwarded, IPv6", headers: []string{`Forwarded: For="[2001:db8::1]:443"`}},
	{name: "Forwarded, behind the proxy", headers: []string{"Forwarded: for=%v, for=127.0.0.1"}},
	{name: "Forwarded, a quote left open", headers: []string{`Forwarded: for="%v`}},
	{name: "Forwarded, a quote left open in a host", headers: []string{`Forwarded: for=%v;host="`}},
	{name: "Forwarded, a quote left open and closed", headers: []string{`Forwarded: for=%v;host="a`, `Forwarded: for=%v;host="b`}},
	{name: "Forwarded, an escape at the end", headers: []string{`Forwarded: for=%v;host="a\`}},
	{name: "Forwarded, an address twice", headers: []string{"Forwarded: for=%v;for=%v"}},
	{name: "Forwarded, garbage", headers: []string{"Forwarded: ===;;;,,,for"}},
	{name: "Forwarded, hidden", headers: []string{"Forwarded: for=_me, for=unknown"}},
	{name: "both", headers: []string{"X-Forwarded-For: %v", "Forwarded: for=%v"}},
	{name: "a folded line", headers: []string{"X-Forwarded-For: 198.51.100.1,\r\n %v"}},
	{name: "a zero byte", headers: []string{"X-Forwarded-For: %v\x00"}, noHTTP: true},
	{name: "a carriage return", headers: []string{"X-Forwarded-For: %v\rX-Other: 1"}, noHTTP: true},
	{name: "a space before the colon", headers: []string{"X-Forwarded-For : %v"}, noHTTP: true},
}

const (
	spooferIPv4 = "127.0.0.2" // the proxy is 127.0.0.1
	victimIPv4  = "127.0.0.3"
)

// Clients behind a real proxy, the one hop that is trusted, send whatever they
// like: they count under their own address, or are refused; and no other bucket
// comes into being.
func TestNoClientChoosesItsBucketBehindAProxy(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	for _, c := range []struct {
		name    string
		trusted ratelimit.Trusted
		// mayRefuse: what a client sends can make what the proxy adds unreadable.
		mayRefuse bool
	}{
		{"X-Forwarded-For by proxies", ratelimit.Trusted{Header: "X-Forwarded-For", Proxies: proxies}, false},
		{"X-Forwarded-For by hops", ratelimit.Trusted{Header: "X-Forwarded-For", Hops: 1}, false},
		{"Forwarded by proxies", ratelimit.Trusted{Header: "Forwarded", Proxies: proxies}, true},
		{"Forwarded by hops", ratelimit.Trusted{Header: "Forwarded", Hops: 1}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for client, key := range map[string]string{spooferIPv4: spooferIPv4, "::1": "::/64"} {
				spoof(t, c.trusted, c.mayRefuse, client, key)
			}
		})
	}
}

// spoof sends all of it as one client, whose key is known.
func spoof(t *testing.T, trusted ratelimit.Trusted, mayRefuse bool, client, key string) {
	limits := newLimits(t, ratelimit.Config{})
	policy := ratelimit.Policy{Name: "ip", Limit: 1000, Period: time.Hour, Algorithm: ratelimit.FixedWindow}
	limited := limits.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ratelimit.By(policy, ratelimit.ClientIP(trusted)))
	server := httptest.NewServer(limited)
	defer server.Close()
	proxy := startProxy(t, net.JoinHostPort(map[bool]string{true: "::1", false: "127.0.0.1"}[strings.Contains(client, ":")], "0"), server.URL)
	used := func() int64 {
		now, err := limits.Status(t.Context(), policy, key)
		require.NoError(t, err)
		return policy.Limit - now.Remaining
	}
	refused := 0
	send := func(name, to string, headers []string) (status int) {
		before := used()
		status, err := sendRaw(client, to, headers)
		require.NoError(t, err, name)
		switch status {
		case http.StatusOK:
			assert.EqualValues(t, before+1, used(), "%s as %s: allowed, and not under its own address", name, client)
		case http.StatusBadRequest:
			refused++
			assert.Equal(t, before, used(), "%s as %s", name, client)
		default:
			t.Errorf("%s as %s: %d", name, client, status)
		}
		keys, err := limits.Size(t.Context())
		require.NoError(t, err)
		require.LessOrEqual(t, keys, 1, "%s as %s: another bucket", name, client)
		return status
	}
	past := trusted.Hops == 0 && client == spooferIPv4 // where only the proxy can connect, nobody gets past it
	for _, c := range spoofs {
		headers := make([]string, len(c.headers))
		for i, h := range c.headers {
			headers[i] = strings.ReplaceAll(strings.ReplaceAll(h, "%v", victimIPv4), "%%", "%")
		}
		status := send(c.name, proxy, headers)
		if c.noHTTP {
			assert.Equal(t, http.StatusBadRequest, status, c.name)
		} else if !mayRefuse {
			assert.Equal(t, http.StatusOK, status, c.name)
		}
		if past && !c.noHTTP {
			assert.Equal(t, http.StatusOK, send(c.name+", past the proxy", server.Listener.Addr().String(), headers))
		}
	}
	t.Logf("as %s: %d ways, %d counted, %d refused", client, len(spoofs), used(), refused)
}

// startProxy forwards to a server as proxies do: it adds whom it sees to what
// the client says, in both headers.
func startProxy(t *testing.T, bind, to string) (address string) {
	t.Helper()
	target, err := url.Parse(to)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", bind)
	if err != nil {
		t.Skipf("no %s here: %v", bind, err)
	}
	transport := new(http.Transport)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded()
			host, _, _ := net.SplitHostPort(r.In.RemoteAddr)
			if strings.Contains(host, ":") {
				host = `"[` + host + `]"`
			}
			lines := append(r.In.Header["Forwarded"], "for="+host+";proto=http")
			r.Out.Header["Forwarded"] = []string{strings.Join(lines, ", ")}
		},
	}}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		assert.NoError(t, server.Close())
		assert.ErrorIs(t, <-done, http.ErrServerClosed)
		transport.CloseIdleConnections()
	})
	return listener.Addr().String()
}

// sendRaw sends a request from an address as it is given: a client of net/http
// would refuse some of these headers.
func sendRaw(from, to string, headers []string) (status int, err error) {
	dialer := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", to)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return 0, err
	}
	request := fmt.Sprintf("GET / HTTP/1.1\r\nHost: service\r\n%s\r\n", strings.Join(append(headers, ""), "\r\n"))
	if _, err := io.WriteString(conn, request); err != nil {
		return 0, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}
