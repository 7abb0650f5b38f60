package ratelimit

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// A parser of structured fields (RFC 9651, section 4.2), as far as lists of
// items go; written from the RFC and independent of the serialiser in use.

type sfItem struct {
	value  any // string, sfToken, int64, bool, []byte
	params map[string]any
	order  []string
}

type sfToken string

type sfParser struct{ in string }

// parseSFList parses a List whose members are Items.
func parseSFList(in string) (list []sfItem, err error) {
	defer func() {
		if r := recover(); r != nil {
			list, err = nil, fmt.Errorf("%v in %q", r, in)
		}
	}()
	for i := range len(in) {
		if in[i] >= 0x80 {
			panic("not ASCII")
		}
	}
	p := &sfParser{strings.TrimLeft(in, " ")}
	for p.in != "" {
		list = append(list, p.item())
		p.in = strings.TrimLeft(p.in, " \t")
		if p.in == "" {
			return list, nil
		}
		p.expect(',')
		p.in = strings.TrimLeft(p.in, " \t")
		if p.in == "" {
			panic("trailing comma")
		}
	}
	return list, nil
}

func (p *sfParser) peek() byte {
	if p.in == "" {
		return 0
	}
	return p.in[0]
}

func (p *sfParser) take() byte {
	c := p.peek()
	if p.in == "" {
		panic("unexpected end")
	}
	p.in = p.in[1:]
	return c
}

func (p *sfParser) expect(c byte) {
	if got := p.take(); got != c {
		panic(fmt.Sprintf("%q, want %q", got, c))
	}
}

func (p *sfParser) item() sfItem {
	it := sfItem{value: p.bare(), params: map[string]any{}}
	for p.peek() == ';' {
		p.take()
		p.in = strings.TrimLeft(p.in, " ")
		name := p.key()
		var value any = true
		if p.peek() == '=' {
			p.take()
			value = p.bare()
		}
		if _, is := it.params[name]; !is {
			it.order = append(it.order, name)
		}
		it.params[name] = value
	}
	return it
}

func lower(c byte) bool { return 'a' <= c && c <= 'z' }
func digit(c byte) bool { return '0' <= c && c <= '9' }
func alpha(c byte) bool { return lower(c) || 'A' <= c && c <= 'Z' }

func (p *sfParser) key() string {
	if c := p.peek(); !lower(c) && c != '*' {
		panic("bad key")
	}
	var b []byte
	for c := p.peek(); lower(c) || digit(c) || c != 0 && strings.IndexByte("_-.*", c) >= 0; c = p.peek() {
		b = append(b, p.take())
	}
	return string(b)
}

func (p *sfParser) bare() any {
	switch c := p.peek(); {
	case c == '-' || digit(c):
		return p.number()
	case c == '"':
		return p.str()
	case c == '*' || alpha(c):
		var b []byte
		for c := p.peek(); alpha(c) || digit(c) || c != 0 && strings.IndexByte("!#$%&'*+-.^_`|~:/", c) >= 0; c = p.peek() {
			b = append(b, p.take())
		}
		return sfToken(b)
	case c == ':':
		p.take()
		end := strings.IndexByte(p.in, ':')
		if end < 0 {
			panic("open byte sequence")
		}
		b, err := base64.StdEncoding.DecodeString(p.in[:end])
		if err != nil {
			panic(err)
		}
		p.in = p.in[end+1:]
		return b
	case c == '?':
		p.take()
		switch p.take() {
		case '0':
			return false
		case '1':
			return true
		}
		panic("bad boolean")
	}
	panic("no item")
}

func (p *sfParser) number() int64 {
	var b []byte
	if p.peek() == '-' {
		b = append(b, p.take())
	}
	digits := 0
	for digit(p.peek()) {
		b = append(b, p.take())
		digits++
	}
	if digits == 0 || digits > 15 || p.peek() == '.' {
		panic("not an integer in range")
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func (p *sfParser) str() string {
	p.expect('"')
	var b []byte
	for {
		switch c := p.take(); {
		case c == '\\':
			c = p.take()
			if c != '"' && c != '\\' {
				panic("bad escape")
			}
			b = append(b, c)
		case c == '"':
			return string(b)
		case c < 0x20 || c >= 0x7f:
			panic("bad character")
		default:
			b = append(b, c)
		}
	}
}

func TestSFParser(t *testing.T) {
	for in, want := range map[string]string{
		``:                              "[]",
		`"a";q=1;w=60, "b";r=0`:         "[{a map[q:1 w:60] [q w]} {b map[r:0] [r]}]",
		`tok;x;y=?0,-5;b=:aGk=:`:        "[{tok map[x:true y:false] [x y]} {-5 map[b:[104 105]] [b]}]",
		`"a\"\\"`:                       `[{a"\ map[] []}]`,
		"  1 ;a":                        "",
		`"a`:                            "",
		`"a",`:                          "",
		`1234567890123456`:              "",
		`"ü"`:                           "",
		`"a";Q=1`:                       "",
		`"default";r=50;t=30;pk=:aGk=:`: "[{default map[pk:[104 105] r:50 t:30] [r t pk]}]",
	} {
		got, err := parseSFList(in)
		if want == "" {
			if err == nil {
				t.Errorf("%q: %v", in, got)
			}
		} else if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q: %v, %v; want %s", in, got, err, want)
		}
	}
}
