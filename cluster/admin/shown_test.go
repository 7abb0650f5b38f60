package admin

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestShown(t *testing.T) {
	for key, want := range map[string]string{
		"":                                "",
		"user:42":                         "user:42",
		"exactly12byt":                    "exactly12byt",
		"thirteen-byte":                   "thirte…",
		"0123456789abcdef":                "01234567…",
		"203.0.113.104":                   "203.0.113.104",
		"2001:db8:1:2::/64":               "2001:db8:1:2::/64",
		"fe80::1%0123456789abcdef0123456": "fe80::1%0123…", // a zone is any text
		"pl_live_0123456789abcdefghijklmnopqrstuvwxyz":       "pl_live_0123…",
		"sha256:47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU": "sha256:47DEQ…",
		"a\x00b\u202ec\xff\n":                                "a·b·c··",
		"äöüäöüäöüäöü":                                       "äöüäöüäöüäöü",
		strings.Repeat("x", 1000):                            "xxxxxxxxxxxx…",
	} {
		assert.Equal(t, want, Shown(key), "%.50q", key)
	}
}

func FuzzShown(f *testing.F) {
	f.Add("203.0.113.104")
	f.Add("pl_live_0123456789abcdefghijklmnopqrstuvwxyz")
	f.Add("a\x00\xff\u202e")
	f.Fuzz(func(t *testing.T, key string) {
		s := Shown(key)
		if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is shown as %q", key, s)
		}
		n, shown := utf8.RuneCountInString(key), utf8.RuneCountInString(s)
		if n > shownWhole && s != key && shown > n/2+1 || shown > 45 {
			t.Errorf("of %q too much is shown: %q", key, s)
		}
	})
}
