package membership

import (
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func fullMeta() Meta {
	return Meta{
		ID: strings.Repeat("i", MaxID), Zone: strings.Repeat("z", MaxZone), Version: strings.Repeat("v", MaxVersion),
		Peer: strings.Repeat("p", MaxAddr), KV: strings.Repeat("k", MaxAddr), KVGossip: strings.Repeat("g", MaxAddr),
		Draining: true, ProtoMin: 1, ProtoMax: 255,
	}
}

func TestMetaFitsAtItsBounds(t *testing.T) {
	m := fullMeta()
	require.NoError(t, m.check())
	b := m.append(nil)
	assert.LessOrEqual(t, len(b), memberlist.MetaMaxSize)
	got, err := parseMeta(b)
	require.NoError(t, err)
	assert.Equal(t, m, got)
	// A later version appends fields; this one reads what it knows.
	later := append(append([]byte{metaFormat + 1}, b[1:]...), "and more"...)
	got, err = parseMeta(later)
	require.NoError(t, err)
	assert.Equal(t, m, got)
}

// The encoding is part of the protocol between releases.
func TestMetaOnTheWire(t *testing.T) {
	m := Meta{ID: "a", Zone: "z1", Peer: "h:1", Draining: true, ProtoMin: 1, ProtoMax: 2}
	assert.Equal(t, "\x01\x01\x01\x02\x01a\x02z1\x00\x03h:1\x00\x00", string(m.append(nil)))
}

func TestMetaOutOfBounds(t *testing.T) {
	for want, edit := range map[string]func(*Meta){
		"ID has 65 bytes, at most 64":        func(m *Meta) { m.ID += "i" },
		"Zone has 65 bytes, at most 64":      func(m *Meta) { m.Zone += "z" },
		"Version has 33 bytes, at most 32":   func(m *Meta) { m.Version += "v" },
		"Peer has 101 bytes, at most 100":    func(m *Meta) { m.Peer += "p" },
		"KV has 101 bytes, at most 100":      func(m *Meta) { m.KV += "k" },
		"KVGossip has 101 bytes, at most 10": func(m *Meta) { m.KVGossip += "g" },
		"ID \"\" must not be empty":          func(m *Meta) { m.ID = "" },
		"contain @":                          func(m *Meta) { m.ID = "a@b" },
		"printable ASCII":                    func(m *Meta) { m.Zone = "z\n" },
		"at least 1":                         func(m *Meta) { m.ProtoMin = 0 },
		"not above the higher":               func(m *Meta) { m.ProtoMin, m.ProtoMax = 2, 1 },
	} {
		m := fullMeta()
		edit(&m)
		assert.ErrorContains(t, m.check(), want)
	}
}

func TestMetaCutShort(t *testing.T) {
	b := fullMeta().append(nil)
	for n := range b {
		_, err := parseMeta(b[:n])
		assert.Error(t, err, "%d bytes", n)
	}
}

func TestProtocolsMeet(t *testing.T) {
	p := func(low, high uint8) Meta { return Meta{ProtoMin: low, ProtoMax: high} }
	for _, c := range []struct {
		a, b Meta
		want bool
	}{
		{p(1, 1), p(1, 1), true}, {p(1, 2), p(2, 3), true}, {p(2, 3), p(1, 2), true},
		{p(1, 1), p(2, 3), false}, {p(2, 3), p(1, 1), false}, {p(1, 9), p(4, 4), true},
	} {
		assert.Equal(t, c.want, c.a.speaks(c.b), "%v %v", c.a, c.b)
	}
}

func FuzzParseMeta(f *testing.F) {
	f.Add(fullMeta().append(nil))
	f.Add(Meta{ID: "a", ProtoMin: 1, ProtoMax: 1}.append(nil))
	f.Add([]byte{})
	f.Add([]byte{1, 0, 1, 1, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err != nil {
			return
		}
		if err := m.check(); err != nil {
			t.Fatalf("accepted, but %v", err)
		}
		again, err := parseMeta(m.append(nil))
		if err != nil || again != m {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}

func TestNames(t *testing.T) {
	name := NameOf("node-1", 0xbeef)
	assert.Equal(t, "node-1@000000000000beef", name)
	id, boot, err := parseName(name)
	require.NoError(t, err)
	assert.Equal(t, "node-1", id)
	assert.EqualValues(t, 0xbeef, boot)
	for _, bad := range []string{
		"", "node-1", "node-1@", "node-1@beef", "n@0000000000000000", "n@00000000000000000",
		"n@000000000000BEEF", "n@+00000000000beef", "a@b@000000000000beef",
	} {
		_, _, err := parseName(bad)
		assert.Error(t, err, bad)
	}
	for _, s := range []State{Unknown, Alive, Draining, Left, Dead} {
		assert.NotEmpty(t, s.String())
		assert.Equal(t, s == Alive || s == Draining, s.Live())
	}
}
