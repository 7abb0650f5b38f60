package peer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func appendFrame(b []byte, h header, payload []byte) []byte {
	return append(h.append(b, len(payload)), payload...)
}

func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := header{
			kind: rapid.Byte().Draw(t, "kind"), version: rapid.Byte().Draw(t, "version"), slot: rapid.Uint16().Draw(t, "slot"),
			id: rapid.Uint64().Draw(t, "id"), target: Boot(rapid.Uint64().Draw(t, "target")), epoch: rapid.Uint64().Draw(t, "epoch"),
		}
		payload := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "payload")
		b := appendFrame(nil, h, payload)
		got, p, size, err := nextFrame(append(b, "next"...), MaxFrame)
		if err != nil || got != h || !bytes.Equal(p, payload) || size != len(b) {
			t.Fatalf("got %+v %x %d %v", got, p, size, err)
		}
		short := rapid.IntRange(0, len(b)-1).Draw(t, "short")
		if _, _, size, err := nextFrame(b[:short], MaxFrame); err != nil || (size != 0) != (short >= lengthBytes) {
			t.Fatalf("of %d bytes: size %d, %v", short, size, err)
		}
	})
}

func TestFrameLengthBounds(t *testing.T) {
	for _, c := range []struct {
		length uint32
		most   int
		ok     bool
	}{
		{0, MaxFrame, false},
		{headerBytes - lengthBytes - 1, MaxFrame, false},
		{headerBytes - lengthBytes, MaxFrame, true},
		{MaxFrame - lengthBytes, MaxFrame, true},
		{MaxFrame - lengthBytes + 1, MaxFrame, false},
		{1<<32 - 1, MaxFrame, false},
		{maxHello - lengthBytes, maxHello, true},
		{maxHello - lengthBytes + 1, maxHello, false},
	} {
		_, _, _, err := nextFrame(binary.BigEndian.AppendUint32(nil, c.length), c.most)
		if (err == nil) != c.ok {
			t.Errorf("length %d of at most %d: %v", c.length, c.most, err)
		}
		if err != nil && reasonOf(err) != reasonLength {
			t.Errorf("reason %q", reasonOf(err))
		}
	}
}

func TestHelloFitsItsBound(t *testing.T) {
	h := hello{versions: versionRange{1, 2}, cluster: 3, from: 4, to: 5, lane: laneStream, service: string(make([]byte, maxService))}
	if b := h.append(nil); len(b) != maxHello {
		t.Fatalf("the longest hello has %d bytes, not %d", len(b), maxHello)
	}
}

func TestVersionsAgree(t *testing.T) {
	for _, c := range []struct {
		a, b versionRange
		want uint8
		ok   bool
	}{
		{versionRange{1, 1}, versionRange{1, 1}, 1, true},
		{versionRange{1, 2}, versionRange{2, 3}, 2, true},
		{versionRange{1, 2}, versionRange{1, 1}, 1, true},
		{versionRange{2, 3}, versionRange{1, 1}, 0, false},
		{versionRange{0, 0}, versionRange{0, 0}, 0, false},
	} {
		for range 2 {
			if v, ok := c.a.agree(c.b); ok != c.ok || ok && v != c.want {
				t.Errorf("%v and %v: %d %v", c.a, c.b, v, ok)
			}
			c.a, c.b = c.b, c.a
		}
	}
}

// whole parses the one frame that b should be.
func whole(b []byte) (header, []byte, bool) {
	h, payload, size, err := nextFrame(b, MaxFrame)
	return h, payload, err == nil && size == len(b)
}

func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, header{kind: TypeUser, version: 1, id: 7}, []byte("payload")))
	f.Add([]byte{0, 0, 0, 28})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			h, payload, size, err := nextFrame(b, MaxFrame)
			if err != nil || size == 0 || size > len(b) {
				if size > MaxFrame {
					t.Fatalf("size %d", size)
				}
				return
			}
			if again := appendFrame(nil, h, payload); !bytes.Equal(again, b[:size]) {
				t.Fatalf("%x came back as %x", b[:size], again)
			}
			b = b[size:]
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(hello{versions: versionRange{1, 1}, cluster: 1, from: 2, to: 3, lane: LaneBulk}.append(nil))
	f.Add(hello{versions: versionRange{1, 2}, cluster: 1, from: 2, to: 3, lane: laneStream, service: "kv"}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		head, payload, err := readOpening(bytes.NewReader(b))
		if err != nil {
			return
		}
		h, err := parseHello(head, payload)
		if err != nil {
			if reasonOf(err) == "" {
				t.Fatalf("no reason: %v", err)
			}
			return
		}
		again, p, ok := whole(h.append(nil))
		got, err := parseHello(again, p)
		if !ok || err != nil || got != h {
			t.Fatalf("%+v came back as %+v, %v", h, got, err)
		}
	})
}

func FuzzWelcome(f *testing.F) {
	f.Add(welcome{version: 1, versions: versionRange{1, 1}, cluster: 1, to: 2, boot: 3}.append(nil))
	f.Add(welcome{versions: versionRange{1, 1}, cluster: 1, to: 2, boot: 3, verdict: refusedGone}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		head, payload, err := readOpening(bytes.NewReader(b))
		if err != nil {
			return
		}
		w, err := parseWelcome(head, payload)
		if err != nil {
			return
		}
		if w.verdict != welcomed && explain(w, versionRange{1, 1}) == nil {
			t.Fatalf("verdict %d explains nothing", w.verdict)
		}
		again, p, ok := whole(w.append(nil))
		got, err := parseWelcome(again, p)
		if !ok || err != nil || got != w {
			t.Fatalf("%+v came back as %+v, %v", w, got, err)
		}
	})
}

func FuzzCall(f *testing.F) {
	f.Add(appendCall(nil, 250_000_000, "kind", []byte("payload")))
	f.Add([]byte{0, 0, 0, 0, 64})
	f.Fuzz(func(t *testing.T, b []byte) {
		wait, kind, payload, err := parseCall(b)
		if err != nil {
			return
		}
		if kind == "" || len(kind) > MaxKind || wait < 0 {
			t.Fatalf("kind %q, wait %v", kind, wait)
		}
		if again := appendCall(nil, wait, kind, payload); !bytes.Equal(again, b) {
			t.Fatalf("%x came back as %x", b, again)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add(appendReply(nil, statusOK, []byte("answer")))
	f.Add(appendReply(nil, statusError, []byte("text")))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, body, err := parseReply(b)
		if err != nil {
			return
		}
		if r := s.result("kind", body); (s == statusOK) != (r.err == nil) {
			t.Fatalf("status %d gives %v", s, r.err)
		}
		if again := appendReply(nil, s, body); !bytes.Equal(again, b) {
			t.Fatalf("%x came back as %x", b, again)
		}
	})
}

// FuzzReadBuffer checks that frames come out of the read buffer whole and in order however the bytes arrive.
func FuzzReadBuffer(f *testing.F) {
	f.Add([]byte{1, 200, 3}, []byte{5, 7})
	f.Add([]byte{255, 255, 255}, []byte{255})
	f.Fuzz(func(t *testing.T, sizes, steps []byte) {
		if len(sizes) == 0 || len(sizes) > 64 || len(steps) == 0 {
			return
		}
		var stream []byte
		for i, s := range sizes {
			stream = appendFrame(stream, header{kind: TypeUser, id: uint64(i)}, bytes.Repeat([]byte{s}, int(s)*40))
		}
		buf := make([]byte, readBufferLeast)
		r, w, next := 0, 0, uint64(0)
		for i := 0; len(stream) > 0; i++ {
			n := copy(buf[w:], stream[:min(len(stream), 1+int(steps[i%len(steps)])*64)])
			if n == 0 {
				t.Fatal("no room to read into")
			}
			w, stream = w+n, stream[n:]
			need := 0
			for {
				h, payload, size, err := nextFrame(buf[r:w], MaxFrame)
				if err != nil {
					t.Fatal(err)
				}
				if size == 0 || w-r < size {
					need = size
					break
				}
				if h.id != next || len(payload) != int(sizes[next])*40 {
					t.Fatalf("frame %d of %d bytes where %d was due", h.id, len(payload), next)
				}
				r, next = r+size, next+1
			}
			full := w == len(buf)
			if r == w {
				r, w = 0, 0
			}
			buf, r, w = makeRoom(buf, r, w, need, full)
		}
		if next != uint64(len(sizes)) {
			t.Fatalf("%d frames of %d", next, len(sizes))
		}
	})
}

func TestReasonsAreListed(t *testing.T) {
	listed := make(map[string]bool)
	for _, r := range Reasons() {
		listed[r] = true
	}
	for v := welcomed + 1; v < verdictCount; v++ {
		if r := reasonOf(refusedHello(hello{}, v, versionRange{1, 1})); !listed[r] {
			t.Errorf("verdict %d has reason %q, which is not listed", v, r)
		}
	}
	if reasonOf(errors.New("x")) != "" {
		t.Error("an error of no kind has a reason")
	}
}
