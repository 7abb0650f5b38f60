package ratelimit

import "strings"

// forwardedFor returns the "for" values of a Forwarded header (RFC 7239), one
// for each element and in order; an element without one is empty.
//
// It follows the grammar to the letter and refuses the whole header where that
// does not hold: proxies write what clients choose, the Host header for one,
// into quoted strings, and a reader who splits at commas would take a piece of
// such a string for an element. What a client sends itself stands before what
// proxies append, and if it leaves a quote open the header does not parse.
func forwardedFor(lines []string) (list []string, ok bool) {
	for _, line := range lines {
		s := forwardedScanner{rest: line}
		for {
			value, ok := s.element()
			if !ok {
				return nil, false
			}
			list = append(list, value)
			s.space()
			if s.rest == "" {
				break
			}
			if !s.next(',') {
				return nil, false
			}
		}
	}
	return list, true
}

type forwardedScanner struct{ rest string }

// element reads pairs divided by semicolons.
func (s *forwardedScanner) element() (value string, ok bool) {
	seen := false
	for {
		s.space()
		name := s.token()
		if name != "" {
			if !s.next('=') {
				return "", false
			}
			v, ok := s.value()
			if !ok {
				return "", false
			}
			if strings.EqualFold(name, "for") {
				if seen || strings.Contains(v, ",") {
					return "", false // each parameter once, and one address
				}
				seen, value = true, v
			}
			s.space()
		}
		if !s.next(';') {
			return value, true
		}
	}
}

func (s *forwardedScanner) value() (string, bool) {
	if !strings.HasPrefix(s.rest, `"`) {
		v := s.token()
		return v, v != ""
	}
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '"':
			s.rest = s.rest[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(s.rest):
			i++
			b.WriteByte(s.rest[i])
		case c == '\\':
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// token reads a token of RFC 9110. Addresses are not tokens where they have
// colons or brackets; many proxies write them bare all the same.
func (s *forwardedScanner) token() string {
	i := 0
	for i < len(s.rest) && tokenByte(s.rest[i]) {
		i++
	}
	t := s.rest[:i]
	s.rest = s.rest[i:]
	return t
}

func tokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~:[]", c) >= 0
}

func (s *forwardedScanner) space() { s.rest = strings.TrimLeft(s.rest, " \t") }

func (s *forwardedScanner) next(c byte) bool {
	if s.rest == "" || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}
