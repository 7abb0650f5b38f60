// Package strictjson reads a JSON request body in one pass, without
// reflection, and names the field in everything it refuses.
//
// It promises that a body which it accepts says one thing only: names are
// compared exactly, a name given twice, a name that nobody asked for, a number
// that would be rounded, text that is not UTF-8 and anything after the document
// are all errors. Errors are collected as far as the syntax allows, so a caller
// learns of several mistakes at once. Work and memory are bounded by the body's
// size, nesting by [MaxDepth], the list of errors by [MaxErrors].
//
// It does not decode into arbitrary values and does not read streams: the
// caller bounds the body's size and hands it over whole.
//
// The grammar is RFC 8259.
package strictjson

import (
	"fmt"
	"iter"
	"math"
	"strconv"
	"time"
)

// MaxDepth is how deep objects and arrays may be nested.
const MaxDepth = 32

// MaxErrors is how many errors are collected before reading stops.
const MaxErrors = 16

// FieldError is one reason why a body was refused.
type FieldError struct {
	Field  string `json:"field"`  // as in limits.key or checks[3].limit; "body" for the document itself
	Detail string `json:"detail"` // what is wrong with it, without its name
}

// Reader is a cursor over one document. Its methods read the value under the
// cursor; a value of the wrong type is skipped and becomes an error, so that
// reading can go on. A Reader is for one goroutine.
type Reader struct {
	data   []byte
	pos    int
	frames [MaxDepth]frame
	depth  int
	broken bool // the syntax is wrong at pos: nothing more can be read
	errs   []FieldError
}

// frame says where in the enclosing object or array the cursor is; it is made
// into a field's name only when there is an error to report.
type frame struct {
	array bool
	name  []byte // of the member, in an object; nil before the first
	index int    // of the element, in an array
}

// NewReader returns a reader of data, which must not change while it is read.
func NewReader(data []byte) *Reader { return &Reader{data: data} }

// Reset makes r read another document, keeping nothing of the one before.
func (r *Reader) Reset(data []byte) {
	r.data, r.pos, r.depth, r.broken, r.errs = data, 0, 0, false, nil
}

// Finish ends the reading: it checks that nothing follows the document and
// returns everything that was wrong, nil if nothing was.
func (r *Reader) Finish() []FieldError {
	if !r.broken {
		if r.skipSpace(); r.pos < len(r.data) {
			r.breakf("has something after the end of the document")
		}
	}
	return r.errs
}

// Failf records an error about the field under the cursor.
func (r *Reader) Failf(format string, args ...any) { r.fail(r.path(""), format, args...) }

// FailFieldf records an error about a member of the object that is being read,
// or, once it has been read, of the object around the cursor: one that is
// missing, say.
func (r *Reader) FailFieldf(name, format string, args ...any) {
	r.fail(r.path(name), format, args...)
}

func (r *Reader) fail(field, format string, args ...any) {
	if r.broken { // what is missing may be in what could not be read
		return
	}
	if len(r.errs) == MaxErrors {
		r.broken = true // enough: the rest is not read
		return
	}
	r.errs = append(r.errs, FieldError{Field: field, Detail: fmt.Sprintf(format, args...)})
}

// breakf records a syntax error. Nothing after it can be understood.
func (r *Reader) breakf(format string, args ...any) {
	if !r.broken {
		r.Failf(format, args...)
		r.broken = true
	}
}

// path is the name of the field under the cursor, or of its member.
func (r *Reader) path(member string) string {
	var b []byte
	for _, f := range r.frames[:r.depth] {
		switch {
		case f.array:
			b = append(b, '[')
			b = strconv.AppendInt(b, int64(f.index), 10)
			b = append(b, ']')
		case f.name != nil:
			if len(b) > 0 {
				b = append(b, '.')
			}
			b = append(b, f.name[:min(len(f.name), maxNameShown)]...)
		}
	}
	if member != "" {
		if len(b) > 0 {
			b = append(b, '.')
		}
		b = append(b, member...)
	}
	if len(b) == 0 {
		return "body"
	}
	return string(b)
}

// maxNameShown bounds what a made-up name can add to an answer or a log.
const maxNameShown = 64

// Object reads an object: the loop's body gets each member's name, and must
// read its value by one of r's methods, or call Unknown. Names are valid until
// the next one.
//
//	for name := range r.Object() {
//		switch string(name) {
//		case "key":
//			key = r.String()
//		default:
//			r.Unknown()
//		}
//	}
func (r *Reader) Object() iter.Seq[[]byte] {
	return func(yield func(name []byte) bool) {
		if !r.open('{', "an object") {
			return
		}
		var seen names
		for first := true; ; first = false {
			done, ok := r.next('}', first)
			if !ok {
				return
			}
			if done {
				break
			}
			name, ok := r.scanString()
			if !ok {
				return
			}
			here := &r.frames[r.depth-1]
			here.name = name
			if r.skipSpace(); !r.take(':') {
				r.breakf("has no colon after its name")
				return
			}
			if !seen.add(name) {
				r.Failf("is given twice")
				r.Skip()
			} else if !yield(name) {
				r.breakf("was not read to its end")
			}
			if r.broken {
				return
			}
		}
		r.depth--
	}
}

// Array reads an array: the loop's body gets each element's index and must
// read the element.
func (r *Reader) Array() iter.Seq[int] {
	return func(yield func(index int) bool) {
		if !r.open('[', "an array") {
			return
		}
		for i := 0; ; i++ {
			done, ok := r.next(']', i == 0)
			if !ok {
				return
			}
			if done {
				break
			}
			r.frames[r.depth-1].index = i
			if !yield(i) {
				r.breakf("was not read to its end")
			}
			if r.broken {
				return
			}
		}
		r.depth--
	}
}

// String reads a string.
func (r *Reader) String() string { return string(r.Text()) }

// Text reads a string without copying it, where nothing had to be unescaped: it
// is the document's own, and must neither be kept nor changed.
func (r *Reader) Text() []byte {
	if !r.expect('"', "a string") {
		return nil
	}
	text, _ := r.scanString()
	return text
}

// Bool reads true or false.
func (r *Reader) Bool() bool {
	switch r.kind() {
	case 't':
		return r.literal("true")
	case 'f':
		r.literal("false")
		return false
	}
	r.wrongType("true or false")
	return false
}

// Int reads a whole number from lowest to highest. A fraction or an exponent
// is refused even where its value is whole, for such a number may have been
// rounded on its way.
func (r *Reader) Int(lowest, highest int64) int64 {
	if k := r.kind(); k != '-' && (k < '0' || k > '9') {
		r.wrongType("a whole number")
		return 0
	}
	text, whole, ok := r.scanNumber()
	if !ok {
		return 0
	}
	if !whole {
		r.Failf("must be a whole number, without fraction or exponent")
		return 0
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil { // out of an int64's range, so out of the caller's
		n = math.MaxInt64
		if text[0] == '-' {
			n = math.MinInt64
		}
	}
	if n < lowest || n > highest || err != nil {
		r.Failf("must be from %d to %d", lowest, highest)
		return 0
	}
	return n
}

// Duration reads a string that holds a Go duration ("60s", "1h30m") from
// lowest to highest.
func (r *Reader) Duration(lowest, highest time.Duration) time.Duration {
	if !r.expect('"', `a duration as a string, like "60s"`) {
		return 0
	}
	text, ok := r.scanString()
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(string(text))
	if err != nil {
		r.Failf(`must be a duration like "60s", "5m" or "24h"`)
		return 0
	}
	if d < lowest || d > highest {
		r.Failf("must be from %s to %s", lowest, highest)
		return 0
	}
	return d
}

// Unknown refuses the member under the cursor and skips its value.
func (r *Reader) Unknown() {
	r.Failf("is not known here")
	r.Skip()
}
