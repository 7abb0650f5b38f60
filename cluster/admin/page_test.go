package admin

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func page(t *testing.T, name string) string {
	t.Helper()
	b, err := files.ReadFile("page/" + name)
	require.NoError(t, err)
	return string(b)
}

func TestThePageNeedsNothingFromElsewhere(t *testing.T) {
	for _, name := range []string{"index.html", "page.css", "page.js", "icon.svg"} {
		body := strings.ReplaceAll(page(t, name), `xmlns="http://www.w3.org/2000/svg"`, "") // a name, which nobody fetches
		assert.NotContains(t, body, "//cdn", name)
		assert.NotRegexp(t, `(?i)(https?:|wss?:|["'(]//|@import|data:)`, body, name)
	}
	html := page(t, "index.html")
	for _, link := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(html, -1) {
		assert.Contains(t, []string{"icon.svg", "page.css", "page.js", "v1/cluster", "v1/cluster/live", "#main"}, link[1],
			"an address that is relative, so that the page may be mounted anywhere")
	}
	// What the Content-Security-Policy forbids would be dead.
	assert.NotRegexp(t, `(?i)<style|style=|<script>|\son\w+=|javascript:`, html)
	assert.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(`, page(t, "page.js"))
	assert.Equal(t, 1, strings.Count(page(t, "page.js"), "fetch("), "it asks for one thing")
	assert.NotContains(t, page(t, "page.js"), "method:", "and only by GET")
}

func TestEveryFigureHasItsPlace(t *testing.T) {
	html, js := page(t, "index.html"), page(t, "page.js")
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(`\sid="([^"]+)"`).FindAllStringSubmatch(html, -1) {
		assert.False(t, ids[m[1]], "two are called %s", m[1])
		ids[m[1]] = true
	}
	asked := regexp.MustCompile(`(?:at|figure|rows)\("([^"]+)"[,)]`).FindAllStringSubmatch(js, -1)
	require.Greater(t, len(asked), 20)
	for _, m := range asked {
		assert.True(t, ids[m[1]], "the script asks for %s", m[1])
	}
	for _, m := range regexp.MustCompile(`aria-labelledby="([^"]+)"`).FindAllStringSubmatch(html, -1) {
		assert.True(t, ids[m[1]], "a section is named by %s", m[1])
	}
	for _, id := range strings.Fields("decisions denials degraded slots takeovers moves merges waiting refused") {
		assert.True(t, ids["self-"+id], id)
	}
}

func TestThePageCanBeHeard(t *testing.T) {
	html := page(t, "index.html")
	assert.Contains(t, html, `<html lang="en">`)
	for _, landmark := range []string{"<header>", `<main id="main" tabindex="-1">`, "<footer"} {
		assert.Equal(t, 1, strings.Count(html, landmark), landmark)
	}
	assert.Equal(t, 1, strings.Count(html, "<h1>"))
	sections := strings.Count(html, "<section ")
	assert.Equal(t, sections, strings.Count(html, "<section aria-labelledby="))
	assert.Equal(t, strings.Count(html, "<table>"), strings.Count(html, "<caption>"))
	assert.Equal(t, strings.Count(html, "<th "), strings.Count(html, `<th scope="col"`))
	assert.Contains(t, page(t, "page.js"), `node.scope = "row"`)
	assert.Equal(t, 1, strings.Count(html, `role="status"`)+strings.Count(html, "aria-live"), "one thing is read out by itself")
	assert.Contains(t, html, `name="viewport" content="width=device-width, initial-scale=1"`)
	assert.Contains(t, html, `class="skip" href="#main"`)
}

// Contrast of WCAG 2.2, success criterion 1.4.3: at least 4.5 to 1.
func TestColoursCanBeRead(t *testing.T) {
	css := page(t, "page.css")
	light, rest, found := strings.Cut(css, "@media (prefers-color-scheme: dark)")
	require.True(t, found)
	dark, _, _ := strings.Cut(rest, "* {")
	for theme, block := range map[string]string{"light": light, "dark": dark} {
		colour := map[string]float64{}
		for _, m := range regexp.MustCompile(`--(\w+): #([0-9a-f]{6});`).FindAllStringSubmatch(block, -1) {
			colour[m[1]] = luminance(t, m[2])
		}
		require.Len(t, colour, 9, theme)
		for _, ink := range []string{"text", "quiet", "link", "good", "warn", "bad"} {
			for _, paper := range []string{"ground", "card"} {
				a, b := colour[ink], colour[paper]
				ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05)
				assert.GreaterOrEqual(t, ratio, 4.5, fmt.Sprintf("%s: %s on %s", theme, ink, paper))
			}
		}
	}
	assert.NotRegexp(t, `[^-]color: #`, css[strings.Index(css, "* {"):], "all colours are those above")
}

// luminance is the relative luminance of WCAG 2.2 of an sRGB colour.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	l := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		require.NoError(t, err)
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		l += weight * c
	}
	return l
}
