package membership

import (
	"crypto/rand"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func testTransport(t *testing.T) *transport {
	t.Helper()
	tr, err := listen("127.0.0.1:0", netip.MustParseAddr("127.0.0.1"))
	require.NoError(t, err)
	tr.start()
	t.Cleanup(func() { assert.NoError(t, tr.Shutdown()) })
	return tr
}

func TestPacketsAndStreams(t *testing.T) {
	a, b := testTransport(t), testTransport(t)
	_, err := a.WriteTo([]byte("hello"), b.advertise.String())
	require.NoError(t, err)
	p := <-b.PacketCh()
	assert.Equal(t, "hello", string(p.Buf))
	assert.Equal(t, a.advertise.String(), p.From.String(), "packets come from the gossip port")
	conn, err := a.DialTimeout(b.advertise.String(), time.Second)
	require.NoError(t, err)
	_, err = conn.Write([]byte("x"))
	require.NoError(t, err)
	in := <-b.StreamCh()
	buf := make([]byte, 1)
	_, err = in.Read(buf)
	require.NoError(t, err)
	require.NoError(t, in.Close())
	_ = in.Close()
	require.NoError(t, conn.Close())
	assert.Empty(t, a.conns)
	assert.Empty(t, b.conns)
	assert.Zero(t, b.incoming)
}

func TestIncomingStreamsAreBounded(t *testing.T) {
	tr := testTransport(t)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range maxStreams {
		c, err := net.Dial("tcp", tr.advertise.String())
		require.NoError(t, err)
		conns = append(conns, c)
		<-tr.StreamCh() // and nobody answers
	}
	c, err := net.Dial("tcp", tr.advertise.String())
	require.NoError(t, err)
	conns = append(conns, c)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "closed at once, not left waiting")
}

func TestShutdownClosesWhatIsOpen(t *testing.T) {
	a, b := testTransport(t), testTransport(t)
	conn, err := a.DialTimeout(b.advertise.String(), time.Second)
	require.NoError(t, err)
	in := <-b.StreamCh()
	read := make(chan error, 1)
	go func() {
		_, err := in.Read(make([]byte, 1))
		read <- err
	}()
	require.NoError(t, b.Shutdown())
	require.NoError(t, b.Shutdown())
	assert.Error(t, <-read)
	_, err = b.DialTimeout(a.advertise.String(), time.Second)
	assert.Error(t, err)
	require.NoError(t, conn.Close())
}

func TestGarbageOnTheGossipPortIsSurvived(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	secret := func(c *Config) { c.Secrets = [][]byte{[]byte("s")} }
	a := l.start("a", secret)
	b := l.start("b", func(c *Config) { secret(c); c.Seeds = []string{a.addr()} })
	within(t, 3*time.Second, "joined", func() bool { return see(a, b) })
	udp, err := net.Dial("udp", a.addr())
	require.NoError(t, err)
	defer udp.Close()
	lbl := append([]byte{244, byte(len(label("test")))}, label("test")...)
	for i := range 300 {
		junk := make([]byte, i)
		_, _ = rand.Read(junk)
		if i%2 == 0 {
			junk = append(append([]byte(nil), lbl...), junk...)
		}
		_, err := udp.Write(junk)
		require.NoError(t, err)
		if i%10 == 0 {
			tcp, err := net.Dial("tcp", a.addr())
			require.NoError(t, err)
			_, _ = tcp.Write(junk)
			require.NoError(t, tcp.Close())
		}
	}
	slow, err := net.Dial("tcp", a.addr())
	require.NoError(t, err)
	defer slow.Close()
	_, err = slow.Write(lbl[:5])
	require.NoError(t, err)
	time.Sleep(500 * time.Millisecond)
	assert.True(t, see(a, b))
	require.NoError(t, b.Update(t.Context(), func(m *Meta) { m.Zone = "still" }))
	within(t, time.Second, "news get through", func() bool { return a.Get(b.boot).Zone == "still" })
	assert.Less(t, countOf(a.log, "level=ERROR")+countOf(a.log, "level=WARN"), 25, "strangers don't fill the log")
}
