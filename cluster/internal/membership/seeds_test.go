package membership

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseSeed(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1":            "10.0.0.1 9",
		"10.0.0.1:80":         "10.0.0.1 80",
		"[::1]:80":            "::1 80",
		"[::1]":               "::1 9",
		"fd00::7":             "fd00::7 9",
		"[::ffff:10.0.0.1]:1": "10.0.0.1 1",
		"[fe80::1%eth0]:1":    "fe80::1 1",
		"peers":               "name peers 9",
		"api.shop.svc:7946":   "name api.shop.svc 7946",
		"api.shop.svc.":       "name api.shop.svc. 9",
	} {
		s, err := parseSeed(text, 9)
		if assert.NoError(t, err, text) {
			got := fmt.Sprint(s.addr, " ", s.port)
			if !s.addr.IsValid() {
				got = fmt.Sprint("name ", s.host, " ", s.port)
			}
			assert.Equal(t, want, got)
		}
	}
	for _, bad := range []string{
		"", ":1", "a:", "a:0", "a:65536", "a:http", "a b", "a/b:1", "http://a:1", "0.0.0.0:1", "[::]:1",
		"224.0.0.1:1", "[::1", "::1]", "a@b:1", strings.Repeat("x", 254), "node%eth0",
	} {
		assert.Error(t, CheckSeed(bad), bad)
	}
}

func FuzzParseSeed(f *testing.F) {
	for _, s := range []string{"a:1", "[::1]:2", "fe80::1%x", "1.2.3.4", "[", "]:1", "a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSeed(text, 9)
		if err == nil && (s.port == 0 || s.host == "" || s.addr.IsUnspecified()) {
			t.Fatalf("%q: %+v", text, s)
		}
	})
}

func seedList9(t *testing.T, r Resolver, texts ...string) *seedList {
	t.Helper()
	l := &seedList{resolver: r}
	for _, text := range texts {
		s, err := parseSeed(text, 9)
		require.NoError(t, err)
		l.all = append(l.all, s)
	}
	return l
}

func TestResolve(t *testing.T) {
	dns := new(names)
	dns.set("many", "10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1", "fd00::1")
	l := seedList9(t, dns, "many:1", "10.0.0.2:1", "many:2", "new", "10.0.0.9")
	got, failed := l.resolve(context.Background())
	assert.Equal(t, "[10.0.0.1:1 10.0.0.2:1 [fd00::1]:1 10.0.0.1:2 10.0.0.2:2 [fd00::1]:2 10.0.0.9:9]", fmt.Sprint(got))
	require.Len(t, failed, 1)
	assert.ErrorContains(t, failed[0], "new")

	// The name server is down: what it said last still holds.
	dns.mu.Lock()
	delete(dns.addrs, "many")
	dns.mu.Unlock()
	again, failed := l.resolve(context.Background())
	assert.Equal(t, got, again)
	assert.Len(t, failed, 2)

	dns.set("many", "10.0.0.3")
	dns.set("new", "10.0.0.4")
	got, failed = l.resolve(context.Background())
	assert.Empty(t, failed)
	assert.Equal(t, "[10.0.0.3:1 10.0.0.2:1 10.0.0.3:2 10.0.0.4:9 10.0.0.9:9]", fmt.Sprint(got))
}

func TestOwnAddresses(t *testing.T) {
	local := func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.5")}
	}
	at := netip.MustParseAddrPort
	all := ownAddresses{advertise: at("203.0.113.1:7946"), bound: at("[::]:7946"), local: local}.filter()
	for addr, want := range map[string]bool{
		"203.0.113.1:7946": true, "10.0.0.5:7946": true, "127.0.0.1:7946": true,
		"10.0.0.5:7947": false, "10.0.0.6:7946": false, "203.0.113.1:7947": false,
	} {
		assert.Equal(t, want, all(at(addr)), addr)
	}
	one := ownAddresses{advertise: at("127.0.0.1:7946"), bound: at("127.0.0.1:7946"), local: local}.filter()
	assert.True(t, one(at("127.0.0.1:7946")))
	assert.False(t, one(at("127.0.0.2:7946")), "another member on this host")
	assert.False(t, one(at("10.0.0.5:7946")))
	assert.NotEmpty(t, localAddresses())
}

func TestAdvertise(t *testing.T) {
	dns := new(names)
	dns.set("me", "fd00::1", "10.0.0.7")
	dns.set("six", "fd00::1")
	dns.set("nothing")
	ctx := context.Background()
	for _, c := range []struct{ bind, advertise, want string }{
		{":1", "192.0.2.1", "192.0.2.1"},
		{":1", "me", "10.0.0.7"},
		{":1", "six", "fd00::1"},
		{":1", "[fd00::2]", "fd00::2"},
		{"127.0.0.1:1", "", "127.0.0.1"},
		{"[::1]:1", "", "::1"},
		{"me:1", "", "10.0.0.7"},
		{":1", "0.0.0.0", "error: not the address of one host"},
		{":1", "unknown", "error: no such host"},
		{":1", "nothing", "error: has no address"},
		{"x", "", "error: not host:port"},
	} {
		got, err := Advertise(ctx, dns, c.bind, c.advertise)
		if want, isErr := strings.CutPrefix(c.want, "error: "); isErr {
			assert.ErrorContains(t, err, want, "%v", c)
		} else if assert.NoError(t, err, "%v", c) {
			assert.Equal(t, c.want, got.String(), "%v", c)
		}
	}
	for want, have := range map[string][]string{
		"10.1.1.1":    {"127.0.0.1", "203.0.113.9", "fd00::1", "10.1.1.1"},
		"203.0.113.9": {"::1", "fd00::1", "203.0.113.9"},
		"fd00::1":     {"2001:db8::1", "fd00::1", "fe80::1"},
		"2001:db8::1": {"fe80::1", "2001:db8::1"},
		"error":       {"127.0.0.1", "::1", "fe80::1", "169.254.0.1"},
	} {
		var addrs []netip.Addr
		for _, a := range have {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		got, err := choose(addrs)
		if want == "error" {
			assert.ErrorContains(t, err, "must be given")
		} else if assert.NoError(t, err) {
			assert.Equal(t, want, got.String())
		}
	}
}
