package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/peerlimit/peerlimit/cmd/node/internal/strictjson"
)

// maxBody is how many bytes a JSON body may have.
const maxBody = 1 << 20

// bodyBuffer is what a request body is read into and an answer is built in;
// the reader is beside it so that a request needs no other memory.
type bodyBuffer struct {
	in     bytes.Buffer
	out    []byte
	reader strictjson.Reader
}

var bodyBuffers = sync.Pool{New: func() any { return new(bodyBuffer) }}

// largestKept is above what nearly all bodies need: one buffer of a megabyte
// should not stay for good because of one client.
const largestKept = 64 << 10

func getBodyBuffer() *bodyBuffer { return bodyBuffers.Get().(*bodyBuffer) }

func (b *bodyBuffer) release() {
	if b.in.Cap() > largestKept || cap(b.out) > largestKept {
		return
	}
	b.in.Reset()
	b.out = b.out[:0]
	b.reader.Reset(nil)
	bodyBuffers.Put(b)
}

// read reads a request's JSON body by read. It returns false, and has answered,
// when the body is not what read asks for.
func (b *bodyBuffer) read(w http.ResponseWriter, r *http.Request, read func(*strictjson.Reader)) bool {
	_, err := b.in.ReadFrom(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		var tooSlow interface{ Timeout() bool }
		if errors.As(err, &tooSlow) && tooSlow.Timeout() {
			writeProblem(w, http.StatusRequestTimeout, "the body took too long")
			return false
		}
		refuseInput(w, strictjson.FieldError{Field: "body", Detail: "ended before its length"})
		return false
	}
	tooLong := b.in.Len() > maxBody
	b.reader.Reset(b.in.Bytes()[:min(b.in.Len(), maxBody)])
	read(&b.reader)
	errs := b.reader.Finish()
	if tooLong {
		// The part that was read breaks off in the field that is too long.
		field := "body"
		if len(errs) > 0 {
			field = errs[len(errs)-1].Field
		}
		w.Header().Set("Connection", "close") // the rest is not read
		refuseInput(w, strictjson.FieldError{Field: field, Detail: fmt.Sprintf("makes the body longer than %d bytes", maxBody)})
		return false
	}
	if len(errs) > 0 {
		refuseInput(w, errs...)
		return false
	}
	return true
}
