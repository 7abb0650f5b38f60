package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"image/png"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pictureVariable names the file that the README's picture of the page is
// written to, an absolute path that ends with .png; pictures of the dark page
// and of a phone go next to it.
const pictureVariable = "PEERLIMIT_TEST_PAGE_PNG"

// The page of a member of three, one of which is killed, while a fourth can be
// heard of but not called.
func TestThePageShowsWhatIs(t *testing.T) {
	browser := StartBrowser(t)
	const token = "the-token-for-the-page-0123"
	tokens := filepath.Join(t.TempDir(), "tokens")
	require.NoError(t, os.WriteFile(tokens, []byte(token+"\n"), 0o600))
	cluster := NewCluster(t, 3, MemberOptions{Cluster: "shop", Token: token, Args: []string{"--api-token-file=" + tokens, "--zone=eu-1"}})
	m1, m2, m3 := cluster.Members()[0], cluster.Members()[1], cluster.Members()[2]
	sent := map[*Member]int{}
	limits := map[string]int64{"by-tenant": 5000}
	check := func(m *Member, policy, key string) {
		ctx, cancel := short()
		defer cancel()
		_, err := m.Check(ctx, Check{Key: key, Limit: max(limits[policy], 20), Period: "24h", Policy: policy}.Body())
		require.NoError(t, err)
		sent[m]++
	}

	// Half of what is asked about one key is denied.
	for i := range 120 {
		check(cluster.Members()[i%2], "by-address", fmt.Sprintf("203.0.113.%d", i%3))
		check(m1, "by-tenant", "tenant-"+strconv.Itoa(i%12))
	}
	const apiKey = "an-api-key-that-nobody-shall-read" // the harness searches answers for it
	secrets.add(apiKey)
	for range 200 {
		check(m1, "by-key", apiKey)
	}
	check(m1, "by-key", "<img src=x onerror=alert(1)>")
	check(m1, "by-key", "<b>bold</b>")

	m3.Kill()
	cluster.Forget(m3)
	cluster.AwaitOneRing(startTimeout)
	certificate, key := ownCertificate(t)
	stranger := cluster.Options()
	stranger.Args = append(slices.Clone(stranger.Args), "--tls-cert="+certificate, "--tls-key="+key, "--tls-ca="+certificate)
	LaunchMember(t, stranger) // speaks TLS where the others do not
	Eventually(t, time.Minute, func() error {
		check(m1, "anything", strconv.Itoa(sent[m1])) // keys of many slots, some of them the stranger's
		return expectBreaker(m1, stranger.Name, "open")
	})

	browser.Look(1100, 1000, "light")
	browser.Open("http://anybody:" + token + "@" + m1.HTTP + "/")
	Eventually(t, time.Minute, func() error { return figuresAgree(browser, m1) })
	var shown pageView
	Eventually(t, time.Minute, func() error {
		if err := browser.Evaluate(readPage, &shown); err != nil {
			return err
		}
		if breaker := row(shown.Tables["breakers"], stranger.Name); len(breaker) < 2 || breaker[1] != "open" {
			return fmt.Errorf("the page shows breakers %q", shown.Tables["breakers"])
		}
		return nil
	})
	assert.Equal(t, strconv.Itoa(sent[m1]), shown.Figures["self-decisions"])
	assert.Contains(t, shown.Verdict, m3.Name+" has died")
	assert.Contains(t, shown.Verdict, "breaker not closed: "+stranger.Name)
	assert.Contains(t, row(shown.Tables["members"], m3.Name)[1], "dead")
	assert.Contains(t, row(shown.Tables["members"], stranger.Name)[1], "alive")
	assert.NotContains(t, row(shown.Tables["members"], m2.Name), "?", "it has told its figures")
	assert.Equal(t, []string{"an-api-key-t…", "by-key"}, shown.Tables["hot"][0][:2], "the hottest key")
	assert.Equal(t, []string{"an-api-key-t…", "by-key"}, shown.Tables["denied"][0][:2], "the most denied key")
	assert.NotNil(t, row(shown.Tables["hot"], "203.0.113.1"), "an address is shown whole")
	secrets.search("the page", []byte(shown.HTML))
	assert.Empty(t, browser.Mistakes(), "what the console says")
	for _, url := range browser.Requests() {
		assert.True(t, strings.HasPrefix(url, "http://"+m1.HTTP+"/") || strings.HasPrefix(url, "http://anybody:"+token+"@"+m1.HTTP+"/"), url)
	}

	if os.Getenv(pictureVariable) != "" { // with a line in its chart
		browser.Open("http://" + m1.HTTP + "/") // the browser remembers the token
		for i := range 200 {
			for range 1 + i/20 {
				check(m1, "by-address", fmt.Sprintf("203.0.113.%d", i%7))
				check(m2, "by-tenant", "tenant-"+strconv.Itoa(i%12))
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	looksGood(t, browser)
	canBeHeard(t, browser)
	sleepsWhileHidden(t, browser)
	assert.Empty(t, browser.Mistakes(), "what the console says in the end")

	m1.Kill()
	Eventually(t, 30*time.Second, func() error {
		if err := browser.Evaluate(readPage, &shown); err != nil {
			return err
		}
		if !strings.Contains(shown.Freshness, "These figures are old: updated") || !strings.Contains(shown.Freshness, "can't be reached") ||
			!strings.Contains(shown.Verdict, "old") {
			return fmt.Errorf("the page says %q, %q of a member that is dead", shown.Verdict, shown.Freshness)
		}
		return nil
	})
}

// pageView is what is on the page.
type pageView struct {
	Figures   map[string]string     // by ID, as they were sent
	Texts     map[string]string     // by ID
	Tables    map[string][][]string // by the ID of their bodies
	Verdict   string
	Freshness string
	HTML      string
}

const readPage = `({
	figures: Object.fromEntries([...document.querySelectorAll("data[id]")].map(d => [d.id, d.getAttribute("value") ?? ""])),
	texts: Object.fromEntries([...document.querySelectorAll("[id]")].map(d => [d.id, d.textContent])),
	tables: Object.fromEntries([...document.querySelectorAll("tbody[id]")].map(b => [b.id, [...b.rows].map(r => [...r.cells].map(c => c.textContent))])),
	verdict: document.getElementById("verdict").textContent,
	freshness: document.getElementById("freshness").textContent,
	html: document.documentElement.outerHTML,
})`

func row(table [][]string, first string) []string {
	for _, cells := range table {
		if cells[0] == first {
			return cells
		}
	}
	return nil
}

func expectBreaker(m *Member, of, want string) error {
	ctx, cancel := short()
	defer cancel()
	view, err := m.View(ctx)
	if err == nil && view.Breakers[of] != want {
		err = fmt.Errorf("%s: the breaker of %s is %q", m.Name, of, view.Breakers[of])
	}
	return err
}

// figuresAgree compares the page with GET /v1/cluster and GET /metrics. Some
// change from one moment to the next, so one disagreement means little.
func figuresAgree(browser *Browser, m *Member) error {
	var shown pageView
	if err := browser.Evaluate(readPage, &shown); err != nil {
		return err
	}
	ctx, cancel := short()
	defer cancel()
	view, err := m.View(ctx)
	if err != nil {
		return err
	}
	refused, open := uint64(0), 0
	for _, n := range view.FramesRejected {
		refused += n
	}
	for name, state := range view.Breakers {
		// One that is not closed is open or half-open from one moment to the next.
		breaker := row(shown.Tables["breakers"], name)
		if len(breaker) < 2 || breaker[1] != state && (breaker[1] == "closed" || state == "closed") {
			return fmt.Errorf("the page shows breakers %q, %s is %s", shown.Tables["breakers"], name, state)
		}
		if state != "closed" {
			open++
		}
	}
	_, _, metrics, err := m.Request(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return err
	}
	decisions, denials, degraded := decisionsOf(string(metrics))
	for id, want := range map[string]any{
		"alive": len(view.Members), "breakers-open": open, "ring-slots": view.Ring.Slots,
		"self-slots": view.Possession.Slots, "self-takeovers": view.Possession.TakeOvers,
		"self-decisions": decisions, "self-denials": denials, "self-degraded": degraded,
	} {
		if got := shown.Figures[id]; got != fmt.Sprint(want) {
			return fmt.Errorf("the page shows %s as %q, it is %v", id, got, want)
		}
	}
	if n, err := strconv.ParseUint(shown.Figures["self-refused"], 10, 64); err != nil || n > refused {
		return fmt.Errorf("the page shows %q frames refused, there are %d", shown.Figures["self-refused"], refused)
	}
	for id, want := range map[string]string{
		"cluster": view.Name, "self": view.Self, "ring-version": view.Ring.Version, "kv-state": view.KV.State,
	} {
		if got := shown.Texts[id]; got != want {
			return fmt.Errorf("the page shows %s as %q, it is %q", id, got, want)
		}
	}
	for _, member := range view.Members {
		if cells := row(shown.Tables["members"], member.Name); len(cells) < 2 || cells[1] != member.State {
			return fmt.Errorf("the page shows members %q, %s is %s", shown.Tables["members"], member.Name, member.State)
		}
	}
	return nil
}

// decisionsOf adds up peerlimit_ratelimit_decisions_total by outcome.
func decisionsOf(metrics string) (decisions, denials, degraded int) {
	for line := range strings.Lines(metrics) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(series, "peerlimit_ratelimit_decisions_total{") {
			continue
		}
		n, _ := strconv.Atoi(value)
		decisions += n
		if strings.Contains(series, `outcome="denied"`) || strings.Contains(series, `outcome="degraded_denied"`) {
			denials += n
		}
		if strings.Contains(series, `outcome="degraded_`) {
			degraded += n
		}
	}
	return decisions, denials, degraded
}

// looksGood looks at the page in both themes, on a desk and on a phone.
func looksGood(t *testing.T, browser *Browser) {
	t.Helper()
	papers := map[string]string{}
	for _, theme := range []string{"light", "dark"} {
		for _, width := range []int{1100, 768, 375, 320} {
			browser.Look(width, 1000, theme)
			var fits struct {
				Scroll, Inner int
				Paper         string
			}
			require.NoError(t, browser.Evaluate(`({scroll: document.documentElement.scrollWidth, inner: innerWidth,
				paper: getComputedStyle(document.body).backgroundColor})`, &fits))
			assert.Equal(t, width, fits.Inner)
			assert.LessOrEqual(t, fits.Scroll, width, "%s, %d px: nobody should have to scroll sideways", theme, width)
			papers[theme] = fits.Paper
			shot := browser.Screenshot()
			picture, err := png.Decode(bytes.NewReader(shot))
			require.NoError(t, err)
			assert.Equal(t, width, picture.Bounds().Dx())
			if path := os.Getenv(pictureVariable); path != "" && width != 768 && width != 320 {
				if theme != "light" || width != 1100 {
					path = strings.TrimSuffix(path, ".png") + fmt.Sprintf("-%s-%d.png", theme, width)
				}
				assert.Less(t, len(shot), 300_000)
				require.NoError(t, os.WriteFile(path, shot, 0o644))
			}
		}
	}
	assert.NotEqual(t, papers["light"], papers["dark"])
	browser.Look(1100, 1000, "light")
}

// canBeHeard asks for what a screen reader gets, and goes through the page by
// the tab key.
func canBeHeard(t *testing.T, browser *Browser) {
	t.Helper()
	var tree struct {
		Nodes []struct {
			Role, Name struct{ Value string }
			Ignored    bool
		}
	}
	var raw json.RawMessage
	browser.do("Accessibility.getFullAXTree", nil, &raw)
	// Values are of many types, of which only texts are of interest.
	require.NoError(t, json.Unmarshal(raw, &tree), "%.300s", raw)
	names := map[string][]string{}
	for _, n := range tree.Nodes {
		if !n.Ignored {
			names[n.Role.Value] = append(names[n.Role.Value], n.Name.Value)
		}
	}
	for _, landmark := range []string{"banner", "main", "contentinfo", "status"} {
		assert.Len(t, names[landmark], 1, landmark)
	}
	assert.Len(t, names["table"], 4)
	assert.Len(t, names["region"], 7)
	for _, role := range []string{"table", "region", "columnheader", "rowheader", "link", "heading"} {
		assert.NotEmpty(t, names[role], role)
		assert.NotContains(t, names[role], "", "a %s has a name", role)
	}

	var stops []string
	for range 3 {
		for _, kind := range []string{"keyDown", "keyUp"} {
			browser.do("Input.dispatchKeyEvent", map[string]any{"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}, nil)
		}
		var stop string
		require.NoError(t, browser.Evaluate(`document.activeElement.getAttribute("href") + " " + (getComputedStyle(document.activeElement).outlineStyle !== "none")`, &stop))
		stops = append(stops, stop)
	}
	assert.Equal(t, []string{"#main true", "v1/cluster true", "v1/cluster/live true"}, stops, "where the tab key leads, and that it is seen")
}

// sleepsWhileHidden: nobody looks at a hidden tab, so it asks for nothing, and
// at once when it is seen again.
func sleepsWhileHidden(t *testing.T, browser *Browser) {
	t.Helper()
	hide := func(hidden bool) {
		var done bool
		require.NoError(t, browser.Evaluate(fmt.Sprintf(`Object.defineProperty(document, "hidden", {value: %v, configurable: true});
			document.dispatchEvent(new Event("visibilitychange")); true`, hidden), &done))
	}
	polls := func() int { return len(browser.Requests()) }
	hide(true)
	time.Sleep(time.Second) // a question under way may still be answered
	before := polls()
	time.Sleep(5 * time.Second) // longer than two questions are apart
	assert.Equal(t, before, polls(), "questions of a hidden tab")
	hide(false)
	Eventually(t, 10*time.Second, func() error {
		if polls() == before {
			return fmt.Errorf("no question since the tab is seen again")
		}
		return nil
	})
}

// ownCertificate is one that nobody else trusts.
func ownCertificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, kind string, bytes []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600))
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", private)
}
