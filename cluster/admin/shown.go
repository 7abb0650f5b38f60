package admin

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// shownWhole is how many characters of a key are shown. A secret has more.
const shownWhole = 12

// Shown returns what a page or a log may show of a limiter's key: an IP address
// or prefix as it is; of anything else that is longer than 12 characters the
// first half, 12 characters at most, and an ellipsis, so that an API key can't be
// read from it. Characters that can't be printed are shown as a middle dot.
func Shown(key string) string {
	if len(key) <= len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128") {
		if a, err := netip.ParseAddr(key); err == nil && a.Zone() == "" {
			return key
		}
		if _, err := netip.ParsePrefix(key); err == nil {
			return key
		}
	}
	n := utf8.RuneCountInString(key)
	show := n
	if n > shownWhole {
		show = min(n/2, shownWhole)
	}
	var b strings.Builder
	for _, r := range key {
		if show == 0 {
			break
		}
		show--
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			r = '·'
		}
		b.WriteRune(r)
	}
	if n > shownWhole {
		b.WriteRune('…')
	}
	return b.String()
}
