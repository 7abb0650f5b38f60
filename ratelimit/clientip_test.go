package ratelimit

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

var (
	xff       = Trusted{Header: "X-Forwarded-For", Proxies: prefixes("10.0.0.0/8", "2001:db8:ffff::/48")}
	forwarded = Trusted{Header: "Forwarded", Proxies: prefixes("10.0.0.0/8", "2001:db8:ffff::/48")}
)

// Clients at 203.0.113.7 and 2001:db8:1:2::7 send what they like; the proxy at
// 10.0.0.1 appends whom it sees. Whatever they send, they count under their own
// address, or are refused: never under one that they chose.
func TestNoClientChoosesItsBucket(t *testing.T) {
	const me4, me6 = "203.0.113.7", "2001:db8:1:2::/64"
	const proxy = "10.0.0.1:4711"
	for _, c := range []struct {
		name    string
		trusted Trusted
		remote  string
		header  string
		lines   []string // the last ones as the proxy leaves them
		want    string   // "": refused
	}{
		// No proxy is trusted: no header counts.
		{"nobody trusted", Trusted{}, me4 + ":99", "X-Forwarded-For", []string{"1.2.3.4"}, me4},
		{"nobody trusted, Forwarded", Trusted{}, me4 + ":99", "Forwarded", []string{"for=1.2.3.4"}, me4},
		{"nobody trusted, X-Real-IP", Trusted{}, me4 + ":99", "X-Real-Ip", []string{"1.2.3.4"}, me4},
		{"nobody trusted, IPv6", Trusted{}, "[2001:db8:1:2::7]:99", "X-Forwarded-For", []string{"1.2.3.4"}, me6},
		{"nobody trusted, mapped", Trusted{}, "[::ffff:203.0.113.7]:99", "", nil, me4},
		{"nobody trusted, zone", Trusted{}, "[2001:db8:1:2::7%eth0]:99", "", nil, me6},
		{"no address", Trusted{}, "@", "X-Forwarded-For", []string{me4}, ""},
		{"unspecified address", Trusted{}, "[::]:99", "", nil, ""},
		// Not through the proxy: the header is the client's own.
		{"past the proxy", xff, me4 + ":99", "X-Forwarded-For", []string{"1.2.3.4"}, me4},
		{"past the proxy, as if it were one", xff, me4 + ":99", "X-Forwarded-For", []string{"10.0.0.1"}, me4},
		{"past the proxy, Forwarded", forwarded, me4 + ":99", "Forwarded", []string{"for=1.2.3.4"}, me4},
		// Through the proxy.
		{"honest", xff, proxy, "X-Forwarded-For", []string{me4}, me4},
		{"one made up", xff, proxy, "X-Forwarded-For", []string{"1.2.3.4, " + me4}, me4},
		{"many made up", xff, proxy, "X-Forwarded-For", []string{strings.Repeat("1.2.3.4,", 500) + me4}, me4},
		{"a proxy made up", xff, proxy, "X-Forwarded-For", []string{"1.2.3.4, 10.9.9.9, " + me4}, me4},
		{"two lines", xff, proxy, "X-Forwarded-For", []string{"1.2.3.4", me4}, me4},
		{"two lines and two proxies", xff, proxy, "X-Forwarded-For", []string{"1.2.3.4", me4 + ", 10.0.0.2"}, me4},
		{"garbage made up", xff, proxy, "X-Forwarded-For", []string{"<script>, ',,;\x00, " + me4}, me4},
		{"a name", xff, proxy, "X-Forwarded-For", []string{"localhost, unknown, " + me4}, me4},
		{"IPv6", xff, proxy, "X-Forwarded-For", []string{"2001:db8:9::1, 2001:db8:1:2::7"}, me6},
		{"IPv6 with brackets and port", xff, proxy, "X-Forwarded-For", []string{"1.2.3.4, [2001:db8:1:2::7]:99"}, me6},
		{"IPv6 with zone", xff, proxy, "X-Forwarded-For", []string{"1.2.3.4, 2001:db8:1:2::7%eth0"}, me6},
		{"mapped IPv4", xff, proxy, "X-Forwarded-For", []string{"::ffff:1.2.3.4, ::ffff:203.0.113.7"}, me4},
		{"IPv4 with port", xff, proxy, "X-Forwarded-For", []string{"1.2.3.4:80, 203.0.113.7:99"}, me4},
		{"IPv6 proxy", xff, "[2001:db8:ffff::1]:99", "X-Forwarded-For", []string{"1.2.3.4, " + me4}, me4},
		{"mapped proxy", xff, "[::ffff:10.0.0.1]:99", "X-Forwarded-For", []string{"1.2.3.4, " + me4}, me4},
		{"the proxy's end is garbage", xff, proxy, "X-Forwarded-For", []string{"1.2.3.4, unknown"}, ""},
		{"the proxy's end is empty", xff, proxy, "X-Forwarded-For", []string{"1.2.3.4, "}, ""},
		{"an empty line", xff, proxy, "X-Forwarded-For", []string{""}, ""},
		{"the proxy itself", xff, proxy, "", nil, "10.0.0.1"},
		{"another proxy itself", xff, proxy, "X-Forwarded-For", []string{"10.9.9.9, 10.0.0.3"}, "10.0.0.3"},
		{"a proxy after garbage", xff, proxy, "X-Forwarded-For", []string{"bad, 10.0.0.3"}, ""},
		{"the other header", xff, proxy, "Forwarded", []string{"for=1.2.3.4"}, "10.0.0.1"},
		// The same in RFC 7239's form.
		{"honest Forwarded", forwarded, proxy, "Forwarded", []string{"for=" + me4}, me4},
		{"Forwarded, one made up", forwarded, proxy, "Forwarded", []string{"for=1.2.3.4, for=203.0.113.7;proto=https;by=10.0.0.1"}, me4},
		{"Forwarded, IPv6", forwarded, proxy, "Forwarded", []string{`for=1.2.3.4, For="[2001:db8:1:2::7]:99"`}, me6},
		{"Forwarded, two lines", forwarded, proxy, "Forwarded", []string{"for=1.2.3.4", "for=" + me4}, me4},
		{"Forwarded, a quote left open", forwarded, proxy, "Forwarded", []string{`for="1.2.3.4, for=203.0.113.7`}, ""},
		{"Forwarded, the host is a list", forwarded, proxy, "Forwarded", []string{`for=203.0.113.7;host="a,for=1.2.3.4;b"`}, me4},
		{"Forwarded, the host is a list and a quote left open", forwarded, proxy, "Forwarded", []string{`for="x, for=203.0.113.7;host="a,for=1.2.3.4;b"`}, ""},
		{"Forwarded, a list in an address", forwarded, proxy, "Forwarded", []string{`for="1.2.3.4,203.0.113.7"`}, ""},
		{"Forwarded, an address twice", forwarded, proxy, "Forwarded", []string{"for=203.0.113.7;for=1.2.3.4"}, ""},
		{"Forwarded, hidden", forwarded, proxy, "Forwarded", []string{"for=1.2.3.4, for=_hidden"}, ""},
		{"Forwarded, garbage", forwarded, proxy, "Forwarded", []string{"===, for=" + me4}, ""},
		{"Forwarded, no address", forwarded, proxy, "Forwarded", []string{"for=1.2.3.4, proto=https"}, ""},
		// By the number of proxies.
		{"two hops", Trusted{Header: "X-Forwarded-For", Hops: 2}, "@", "X-Forwarded-For", []string{"1.2.3.4, " + me4 + ", 10.0.0.2"}, me4},
		{"two hops, one given", Trusted{Header: "X-Forwarded-For", Hops: 2}, proxy, "X-Forwarded-For", []string{me4}, ""},
		{"one hop, none given", Trusted{Header: "X-Forwarded-For", Hops: 1}, proxy, "", nil, ""},
		{"one hop, Forwarded", Trusted{Header: "Forwarded", Hops: 1}, proxy, "Forwarded", []string{"for=1.2.3.4,for=" + me4}, me4},
		// A header of one address.
		{"one address", Trusted{Header: "CF-Connecting-IP", Proxies: xff.Proxies}, proxy, "Cf-Connecting-Ip", []string{me4}, me4},
		{"one address, past the proxy", Trusted{Header: "CF-Connecting-IP", Proxies: xff.Proxies}, me4 + ":99", "Cf-Connecting-Ip", []string{"1.2.3.4"}, me4},
		{"one address that is none", Trusted{Header: "CF-Connecting-IP", Proxies: xff.Proxies}, proxy, "Cf-Connecting-Ip", []string{"me"}, ""},
		// Prefixes.
		{"IPv6 by /48", Trusted{IPv6Bits: 48}, "[2001:db8:1:2::7]:99", "", nil, "2001:db8:1::/48"},
		{"IPv6 whole", Trusted{IPv6Bits: 128}, "[2001:db8:1:2::7]:99", "", nil, "2001:db8:1:2::7/128"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = c.remote
			if c.header != "" {
				r.Header[c.header] = c.lines
			}
			got, err := ClientIP(c.trusted)(r)
			if got != c.want || (c.want == "") != errors.Is(err, ErrNoKey) {
				t.Errorf("counts under %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestTrustedBounds(t *testing.T) {
	for field, trusted := range map[string]Trusted{
		"trusted.header":    {Hops: 1},
		"trusted.proxies":   {Header: "X-Forwarded-For"},
		"trusted.hops":      {Header: "X-Forwarded-For", Hops: 1, Proxies: xff.Proxies},
		"trusted.ipv6_bits": {IPv6Bits: 129},
	} {
		var f *FieldError
		if err := trusted.Validate(); !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: ClientIP takes it", field)
				}
			}()
			ClientIP(trusted)
		}()
	}
	for _, bad := range []Trusted{
		{Header: "X Y", Hops: 1}, {Header: "X-Forwarded-For", Hops: 17}, {Header: "X-Forwarded-For", Hops: -1},
		{Header: "X-Real-IP", Hops: 2}, {Header: "X-Forwarded-For", Proxies: []netip.Prefix{{}}},
	} {
		if bad.Validate() == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
}

func FuzzClientIP(f *testing.F) {
	f.Add("203.0.113.7, 10.0.0.1", `for=203.0.113.7;host="a,b"`)
	f.Add("[::1%eth0]:80", `for="[2001:db8::1]:80", for=unknown`)
	byXFF, byForwarded := ClientIP(xff), ClientIP(forwarded)
	f.Fuzz(func(t *testing.T, x, fwd string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = "10.0.0.1:99"
		// What a client sends stands before what the proxy appends.
		for _, line := range []struct {
			header, sent, appended string
			key                    KeyFunc
		}{
			{"X-Forwarded-For", x, "203.0.113.7", byXFF},
			{"Forwarded", fwd, `for=203.0.113.7;proto=https`, byForwarded},
		} {
			for _, lines := range [][]string{{line.sent + ", " + line.appended}, {line.sent, line.appended}} {
				r.Header = http.Header{line.header: lines}
				if got, err := line.key(r); err == nil && got != "203.0.113.7" {
					t.Fatalf("%q counts under %q", lines, got)
				}
			}
		}
	})
}

func TestClientIPAllocatesItsKeyOnly(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	for _, remote := range []string{"203.0.113.7:99", "[2001:db8:1:2::7]:99"} {
		r.RemoteAddr = remote
		key := ClientIP(Trusted{})
		if n := testing.AllocsPerRun(100, func() { key(r) }); n > 1 {
			t.Errorf("%s: %v allocations", remote, n)
		}
	}
}

// The address that is taken as it stands is the one that net/netip reads, and
// nothing is taken that it would not, nor what is longer than it has to be.
func FuzzHostIPv4(f *testing.F) {
	for _, s := range []string{
		"203.0.113.7:4711", "203.0.113.7", "203.0.113.7:", "203.0.113.7:65535", "203.0.113.7:65536", "203.0.113.7:http",
		"203.0.113.7:00080", "0.0.0.0:1", "0.0.0.1:1", "01.2.3.4:5", "1.2.3.04:5", "1.2.3.256:5", "1.2.3:4", "1.2.3.4.5:6",
		"1..3.4:5", ".2.3.4:5", "1.2.3.:5", ":5", "", "[::ffff:1.2.3.4]:5", "::1", "1.2.3.4:5:6", "1.2.3.4:-5", "1.2.3.4 :5",
		"203.0.113.7:99999999999999999999",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := ""
		if ap, err := netip.ParseAddrPort(s); err == nil && ap.Addr().Is4() && !ap.Addr().IsUnspecified() && len(s) <= len("255.255.255.255:65535") {
			want = ap.Addr().String()
		}
		if got := hostIPv4(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	})
}
