package strictjson

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// order is what the tests read: every kind of value, nested once.
type order struct {
	key    string
	limit  int64
	period time.Duration
	shadow bool
	lines  []int64
	inner  map[string]string
}

func readOrder(r *Reader) (o order) {
	for name := range r.Object() {
		switch string(name) {
		case "key":
			o.key = r.String()
		case "limit":
			o.limit = r.Int(1, 1<<53)
		case "period":
			o.period = r.Duration(time.Second, time.Hour)
		case "shadow":
			o.shadow = r.Bool()
		case "lines":
			for range r.Array() {
				o.lines = append(o.lines, r.Int(-5, 5))
			}
		case "inner":
			o.inner = map[string]string{}
			for name := range r.Object() {
				o.inner[string(name)] = r.String()
			}
		default:
			r.Unknown()
		}
	}
	return o
}

func TestReadsEveryKindOfValue(t *testing.T) {
	r := NewReader([]byte(` {"key":"a\"\\\/\b\f\n\r\té\ud83d\ude00é", "limit" : 9007199254740992,
		"period":"1m30s","shadow":true,"lines":[-5, 0,5 ],"inner":{"x":"1","y":"2"}} `))
	o := readOrder(r)
	require.Empty(t, r.Finish())
	assert.Equal(t, order{
		key: "a\"\\/\b\f\n\r\té😀é", limit: 1 << 53, period: 90 * time.Second, shadow: true,
		lines: []int64{-5, 0, 5}, inner: map[string]string{"x": "1", "y": "2"},
	}, o)
}

func TestRefusalsNameTheField(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{"key":1}`, `key: must be a string, got a number`},
		{`{"key":null}`, `key: must be a string, got null`},
		{`{"key":{"a":[1]}}`, `key: must be a string, got an object`},
		{`{"key":["x"],"limit":"7"}`, `key: must be a string, got an array; limit: must be a whole number, got a string`},
		{`{"key":"a","key":"b"}`, `key: is given twice`},
		{`{"nonsense":[{"a":1}],"limit":2}`, `nonsense: is not known here`},
		{`{"KEY":"a"}`, `KEY: is not known here`},
		{`{"limit":-1}`, `limit: must be from 1 to 9007199254740992`},
		{`{"limit":0}`, `limit: must be from 1 to 9007199254740992`},
		{`{"limit":9007199254740993}`, `limit: must be from 1 to 9007199254740992`},
		{`{"limit":99999999999999999999999999}`, `limit: must be from 1 to 9007199254740992`},
		{`{"limit":-99999999999999999999999999}`, `limit: must be from 1 to 9007199254740992`},
		{`{"limit":1.0}`, `limit: must be a whole number, without fraction or exponent`},
		{`{"limit":1e3}`, `limit: must be a whole number, without fraction or exponent`},
		{`{"limit":true}`, `limit: must be a whole number, got true or false`},
		{`{"limit":NaN}`, `limit: must be a whole number, got something that is not JSON`},
		{`{"limit":Infinity}`, `limit: must be a whole number, got something that is not JSON`},
		{`{"limit":+1}`, `limit: must be a whole number, got something that is not JSON`},
		{`{"limit":01}`, `limit: is not a number`},
		{`{"limit":-}`, `limit: is not a number`},
		{`{"limit":1.}`, `limit: is not a number`},
		{`{"limit":1e}`, `limit: is not a number`},
		{`{"limit":1_0}`, `limit: is not a number`},
		{`{"limit":0x10}`, `limit: is not a number`},
		{`{"period":60}`, `period: must be a duration as a string, like "60s", got a number`},
		{`{"period":"60"}`, `period: must be a duration like "60s", "5m" or "24h"`},
		{`{"period":"1ms"}`, `period: must be from 1s to 1h0m0s`},
		{`{"period":"2h"}`, `period: must be from 1s to 1h0m0s`},
		{`{"shadow":"true"}`, `shadow: must be true or false, got a string`},
		{`{"shadow":tru}`, `shadow: is not JSON`},
		{`{"lines":[1,9,true]}`, `lines[1]: must be from -5 to 5; lines[2]: must be a whole number, got true or false`},
		{`{"lines":7}`, `lines: must be an array, got a number`},
		{`{"lines":[1 2]}`, `lines[0]: is followed by something other than a comma or ']'`},
		{`{"inner":{"x":1}}`, `inner.x: must be a string, got a number`},
		{`{"key":"a"`, `key: ends too soon`},
		{`{"key":"a`, `key: ends too soon`},
		{`{"key":"a\`, `key: ends too soon`},
		{`{"key":"a" "limit":1}`, `key: is followed by something other than a comma or '}'`},
		{`{"key":"a",}`, `key: is followed by something that is not a member`},
		{`{"key" "a"}`, `key: has no colon after its name`},
		{"{\"key\":\"a\x01\"}", `key: has a control character in a string`},
		{"{\"key\":\"\xff\"}", `key: is not UTF-8`},
		{"{\"key\":\"\\n\xff\"}", `key: is not UTF-8`},
		{`{"key":"\ud800"}`, `key: has a wrong escape in a string`},
		{`{"key":"\ud800\u0041"}`, `key: has a wrong escape in a string`},
		{`{"key":"\udc00\ud800"}`, `key: has a wrong escape in a string`},
		{`{"key":"\u12g4"}`, `key: has a wrong escape in a string`},
		{`{"key":"\x41"}`, `key: has a wrong escape in a string`},
		{`{key:"a"}`, `body: is followed by something that is not a member`},
		{``, `body: ends too soon`},
		{`  `, `body: ends too soon`},
		{`[]`, `body: must be an object, got an array`},
		{`"x"`, `body: must be an object, got a string`},
		{`{} {}`, `body: has something after the end of the document`},
		{`{"key":"a"}x`, `body: has something after the end of the document`},
		{`{"lines":` + strings.Repeat("[", 100_000), `lines[0]: must be a whole number, got an array; lines` +
			strings.Repeat("[0]", MaxDepth-1) + `: is nested deeper than 32`},
		{`{"zz` + strings.Repeat("z", 1000) + `":1}`, strings.Repeat("z", maxNameShown) + `: is not known here`},
	} {
		r := NewReader([]byte(c.body))
		readOrder(r)
		var got []string
		for _, e := range r.Finish() {
			got = append(got, e.Field+": "+e.Detail)
		}
		assert.Equal(t, c.want, strings.Join(got, "; "), "%.100s", c.body)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"lines":[`)
	for range 50_000 {
		b.WriteString(`"x",`)
	}
	b.WriteString(`1]}`)
	r := NewReader([]byte(b.String()))
	readOrder(r)
	require.Len(t, r.Finish(), MaxErrors)
}

func TestALoopLeftEarlyIsAnError(t *testing.T) {
	r := NewReader([]byte(`{"a":1,"b":2}`))
	for range r.Object() {
		break
	}
	require.NotEmpty(t, r.Finish())
	r = NewReader([]byte(`[1,2]`))
	for range r.Array() {
		break
	}
	require.NotEmpty(t, r.Finish())
}

func TestManyNamesCostNoSquare(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{`)
	for i := range 100_000 {
		fmt.Fprintf(&b, `"n%d":1,`, i)
	}
	b.WriteString(`"n99999":1}`)
	r := NewReader([]byte(b.String()))
	start := time.Now()
	r.Skip()
	assert.Equal(t, []FieldError{{"n99999", "is given twice"}}, r.Finish())
	assert.Less(t, time.Since(start), 5*time.Second, "comparing each name with each takes minutes")
}

func TestResetForgets(t *testing.T) {
	r := NewReader([]byte(`{"key":[[[`))
	readOrder(r)
	require.NotEmpty(t, r.Finish())
	r.Reset([]byte(`{"key":"b"}`))
	assert.Equal(t, "b", readOrder(r).key)
	require.Empty(t, r.Finish())
}

// FuzzAgainstEncodingJSON: what Skip accepts is JSON to the standard library
// too, and what that accepts is refused only for a reason of our own.
func FuzzAgainstEncodingJSON(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[]`, `{"a":[1,2.5e-3,true,false,null,"x\u00e9\ud83d\ude00"],"b":{"c":{}}}`, `{"a":1,"a":2}`,
		`01`, `-0`, `1e5`, `"\ud800"`, "\"\xff\"", `[[[[[[[[]]]]]]]]`, `nul`, `tru`, `{"a":}`, ` 1 `, `1 2`, `[1,]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := NewReader(body)
		r.Skip()
		errs := r.Finish()
		if len(errs) == 0 {
			if !json.Valid(body) {
				t.Fatalf("accepted %q", body)
			}
			return
		}
		if json.Valid(body) && utf8.Valid(body) && !ours(body, errs) {
			t.Fatalf("refused %q: %v", body, errs)
		}
		r.Reset(body)
		readOrder(r) // must not panic
	})
}

// ours reports whether a valid document may be refused: for a name that comes
// twice, half a surrogate pair, or its depth.
func ours(body []byte, errs []FieldError) bool {
	for _, e := range errs {
		switch {
		case e.Detail == "is given twice":
		case e.Detail == "has a wrong escape in a string" && strings.Contains(strings.ToLower(string(body)), `\ud`):
		case strings.HasPrefix(e.Detail, "is nested deeper") && depth(body) > MaxDepth:
		default:
			return false
		}
	}
	return true
}

func depth(body []byte) (deepest int) {
	dec := json.NewDecoder(strings.NewReader(string(body)))
	for d := 0; ; {
		token, err := dec.Token()
		if err == io.EOF {
			return deepest
		} else if err != nil {
			return -1
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			d++
			deepest = max(deepest, d)
		case json.Delim('}'), json.Delim(']'):
			d--
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	body := []byte(`{"key":"account:000123","limit":1000,"period":"60s"}`)
	b.ReportAllocs()
	r := NewReader(nil)
	for b.Loop() {
		r.Reset(body)
		if readOrder(r); len(r.Finish()) > 0 {
			b.Fatal("refused")
		}
	}
}

func BenchmarkCheckByEncodingJSON(b *testing.B) {
	body := []byte(`{"key":"account:000123","limit":1000,"period":"60s"}`)
	b.ReportAllocs()
	for b.Loop() {
		var o struct {
			Key    string `json:"key"`
			Limit  int64  `json:"limit"`
			Period string `json:"period"`
		}
		if err := json.Unmarshal(body, &o); err != nil {
			b.Fatal(err)
		}
	}
}
