package strictjson

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

func (r *Reader) skipSpace() {
	for r.pos < len(r.data) {
		switch r.data[r.pos] {
		case ' ', '\t', '\n', '\r':
			r.pos++
		default:
			return
		}
	}
}

func (r *Reader) take(c byte) bool {
	if r.pos < len(r.data) && r.data[r.pos] == c {
		r.pos++
		return true
	}
	return false
}

// kind is the first byte of the value under the cursor, 0 when there is none.
func (r *Reader) kind() byte {
	if r.broken {
		return 0
	}
	r.skipSpace()
	if r.pos == len(r.data) {
		r.breakf("ends too soon")
		return 0
	}
	return r.data[r.pos]
}

// expect reports whether the value under the cursor begins with c; if not, the
// value is skipped and refused.
func (r *Reader) expect(c byte, want string) bool {
	k := r.kind()
	if k == c {
		return true
	}
	if !r.broken {
		r.wrongType(want)
	}
	return false
}

func (r *Reader) wrongType(want string) {
	if r.broken {
		return
	}
	got := "something that is not JSON"
	switch k := r.kind(); {
	case k == '"':
		got = "a string"
	case k == '{':
		got = "an object"
	case k == '[':
		got = "an array"
	case k == 't' || k == 'f':
		got = "true or false"
	case k == 'n':
		got = "null"
	case k == '-' || k >= '0' && k <= '9':
		got = "a number"
	default:
		r.breakf("must be %s, got %s", want, got)
		return
	}
	r.Failf("must be %s, got %s", want, got)
	r.Skip()
}

// open enters an object or an array.
func (r *Reader) open(c byte, want string) bool {
	if !r.expect(c, want) {
		return false
	}
	if r.depth == MaxDepth {
		r.breakf("is nested deeper than %d", MaxDepth)
		return false
	}
	r.pos++
	r.frames[r.depth] = frame{array: c == '['}
	r.depth++
	return true
}

// next steps over what stands between two members or elements. done says that
// the closing bracket was read.
func (r *Reader) next(closing byte, first bool) (done, ok bool) {
	r.skipSpace()
	if r.pos == len(r.data) {
		r.breakf("ends too soon")
		return false, false
	}
	if r.take(closing) {
		return true, true
	}
	if !first {
		if !r.take(',') {
			r.breakf("is followed by something other than a comma or %q", closing)
			return false, false
		}
		r.skipSpace()
	}
	if closing == '}' && (r.pos == len(r.data) || r.data[r.pos] != '"') {
		r.breakf("is followed by something that is not a member")
		return false, false
	}
	return false, true
}

func (r *Reader) literal(word string) bool {
	if !bytes.HasPrefix(r.data[r.pos:], []byte(word)) {
		r.breakf("is not JSON")
		return false
	}
	r.pos += len(word)
	return true
}

// Skip reads over the value under the cursor, checking its syntax.
func (r *Reader) Skip() {
	switch k := r.kind(); {
	case r.broken:
	case k == '"':
		r.scanString()
	case k == '{':
		for range r.Object() {
			r.Skip()
		}
	case k == '[':
		for range r.Array() {
			r.Skip()
		}
	case k == 't':
		r.literal("true")
	case k == 'f':
		r.literal("false")
	case k == 'n':
		r.literal("null")
	case k == '-' || k >= '0' && k <= '9':
		r.scanNumber()
	default:
		r.breakf("is not JSON")
	}
}

// scanNumber reads a number by RFC 8259, section 6.
func (r *Reader) scanNumber() (text []byte, whole, ok bool) {
	start := r.pos
	r.take('-')
	switch {
	case r.take('0'):
	case r.digits():
	default:
		r.breakf("is not a number")
		return nil, false, false
	}
	whole = true
	if r.take('.') {
		whole = false
		if !r.digits() {
			r.breakf("is not a number")
			return nil, false, false
		}
	}
	if r.take('e') || r.take('E') {
		whole = false
		if !r.take('+') {
			r.take('-')
		}
		if !r.digits() {
			r.breakf("is not a number")
			return nil, false, false
		}
	}
	if r.pos < len(r.data) {
		switch c := r.data[r.pos]; c {
		case ',', ']', '}', ' ', '\t', '\n', '\r':
		default: // 012, 1x, 0x10, 1_000
			r.breakf("is not a number")
			return nil, false, false
		}
	}
	return r.data[start:r.pos], whole, true
}

func (r *Reader) digits() bool {
	start := r.pos
	for r.pos < len(r.data) && r.data[r.pos] >= '0' && r.data[r.pos] <= '9' {
		r.pos++
	}
	return r.pos > start
}

// scanString reads a string and returns its text: a part of the document where
// nothing had to be unescaped.
func (r *Reader) scanString() ([]byte, bool) {
	r.pos++ // the opening quote
	start := r.pos
	for ; r.pos < len(r.data); r.pos++ {
		switch c := r.data[r.pos]; {
		case c == '"':
			text := r.data[start:r.pos]
			r.pos++
			if !utf8.Valid(text) {
				r.breakf("is not UTF-8")
				return nil, false
			}
			return text, true
		case c == '\\':
			return r.scanEscaped(bytes.Clone(r.data[start:r.pos]))
		case c < ' ':
			r.breakf("has a control character in a string")
			return nil, false
		}
	}
	r.breakf("ends too soon")
	return nil, false
}

// scanEscaped goes on with a string from its first backslash on.
func (r *Reader) scanEscaped(text []byte) ([]byte, bool) {
	for r.pos < len(r.data) {
		c := r.data[r.pos]
		r.pos++
		switch {
		case c == '"':
			if !utf8.Valid(text) {
				r.breakf("is not UTF-8")
				return nil, false
			}
			return text, true
		case c < ' ':
			r.breakf("has a control character in a string")
			return nil, false
		case c != '\\':
			text = append(text, c)
			continue
		}
		if r.pos == len(r.data) {
			break
		}
		c = r.data[r.pos]
		r.pos++
		switch c {
		case '"', '\\', '/':
			text = append(text, c)
		case 'b':
			text = append(text, '\b')
		case 'f':
			text = append(text, '\f')
		case 'n':
			text = append(text, '\n')
		case 'r':
			text = append(text, '\r')
		case 't':
			text = append(text, '\t')
		case 'u':
			char, ok := r.scanUnicode()
			if !ok {
				return nil, false
			}
			text = utf8.AppendRune(text, char)
		default:
			r.breakf("has a wrong escape in a string")
			return nil, false
		}
	}
	r.breakf("ends too soon")
	return nil, false
}

// scanUnicode reads what follows \u. Half a surrogate pair is refused: to
// replace it, as encoding/json does, would make two different keys one.
func (r *Reader) scanUnicode() (rune, bool) {
	char, ok := r.hex4()
	if ok && utf16.IsSurrogate(char) {
		var low rune
		if ok = r.take('\\') && r.take('u'); ok {
			low, ok = r.hex4()
		}
		char = utf16.DecodeRune(char, low)
		ok = ok && char != utf8.RuneError
	}
	if !ok {
		r.breakf("has a wrong escape in a string")
	}
	return char, ok
}

func (r *Reader) hex4() (rune, bool) {
	if len(r.data)-r.pos < 4 {
		return 0, false
	}
	var char rune
	for _, c := range r.data[r.pos : r.pos+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		char = char<<4 | rune(c)
	}
	r.pos += 4
	return char, true
}

// names finds a name that comes twice. Few are compared one by one; of many a
// map is made, for an object of 100,000 names must not cost their square.
type names struct {
	few  [8][]byte
	n    int
	many map[string]bool
}

func (s *names) add(name []byte) bool {
	if s.many != nil {
		if s.many[string(name)] {
			return false
		}
		s.many[string(name)] = true
		return true
	}
	for _, old := range s.few[:s.n] {
		if bytes.Equal(old, name) {
			return false
		}
	}
	if s.n < len(s.few) {
		s.few[s.n] = name
		s.n++
		return true
	}
	s.many = make(map[string]bool, 2*len(s.few))
	for _, old := range s.few {
		s.many[string(old)] = true
	}
	s.many[string(name)] = true
	return true
}
