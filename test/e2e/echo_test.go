package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// echoVariable makes the test binary an echo server, on the host that it names,
// instead of running tests.
const echoVariable = "PEERLIMIT_E2E_ECHO"

// stallLength is how long the control must have been silent for the machine to
// count as stalled.
const stallLength = 50 * time.Millisecond

// Span is a piece of time.
type Span struct{ Start, End time.Time }

// Overlaps reports whether the two have an instant in common.
func (s Span) Overlaps(o Span) bool { return s.Start.Before(o.End) && o.Start.Before(s.End) }

// Control measures when the machine, not a member, was slow: a process that
// does nothing but send back what it gets is asked all the time, and asking it
// takes long only when neither side was given the processor. A call to a member
// that was slow at such a time tells nothing about the member. Nor does one at a
// time when some member wanted to run and was not let; see watch.
type Control struct {
	echo    *os.Process
	stop    chan struct{}
	done    chan struct{}
	watched chan struct{}

	mu      sync.Mutex
	stalls  []Span // guarded by mu
	asked   int    // guarded by mu
	starved int    // times that a member got no processor; guarded by mu
	begun   time.Time
	failed  error // guarded by mu
}

// StartControl starts the echo process and asks it until the test ends.
func StartControl(t testing.TB) *Control {
	t.Helper()
	command := exec.Command(testBinary(t))
	command.Env = append(os.Environ(), echoVariable+"=127.0.0.1")
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := processes.start(command); err != nil {
		t.Fatal(err)
	}
	stop := func() {
		_ = command.Process.Kill()
		_ = processes.wait(command)
	}
	line := make([]byte, 64)
	n, err := stdout.Read(line)
	if err != nil {
		stop()
		t.Fatalf("control: %v", err)
	}
	conn, err := net.Dial("tcp", string(line[:n]))
	if err != nil {
		stop()
		t.Fatalf("control: %v", err)
	}
	c := &Control{echo: command.Process, stop: make(chan struct{}), done: make(chan struct{}), watched: make(chan struct{})}
	go c.ask(conn)
	go c.watch()
	t.Cleanup(func() {
		close(c.stop)
		<-c.done
		<-c.watched
		_ = conn.Close()
		stop()
		if err := c.err(); err != nil {
			t.Errorf("control: %v", err)
		}
	})
	return c
}

// ask sends one byte a few hundred times a second and notes when that, or the
// pause in between, took too long.
func (c *Control) ask(conn net.Conn) {
	defer close(c.done)
	const pause = 2 * time.Millisecond
	b := []byte{0}
	last := time.Now()
	for {
		select {
		case <-c.stop:
			return
		case <-time.After(pause):
		}
		c.mu.Lock()
		c.begun = last
		c.mu.Unlock()
		_, err := conn.Write(b)
		if err == nil {
			_, err = io.ReadFull(conn, b)
		}
		now := time.Now()
		c.mu.Lock()
		c.asked++
		c.begun = time.Time{}
		if now.Sub(last) >= stallLength {
			c.stalls = append(c.stalls, Span{last, now})
		}
		c.failed = err
		c.mu.Unlock()
		if err != nil {
			return
		}
		last = now
	}
}

func (c *Control) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// Stalls returns when the machine was stalled so far, also now.
func (c *Control) Stalls() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	stalls := slices.Clone(c.stalls)
	if now := time.Now(); !c.begun.IsZero() && now.Sub(c.begun) >= stallLength {
		stalls = append(stalls, Span{c.begun, now})
	}
	return stalls
}

// Excuses reports whether the machine was stalled at some time of s.
func (c *Control) Excuses(s Span) bool {
	return slices.ContainsFunc(c.Stalls(), s.Overlaps)
}

// Asked is how often the echo process has answered.
func (c *Control) Asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// stallEcho stops the echo process for d.
func (c *Control) stallEcho(t testing.TB, d time.Duration) {
	t.Helper()
	if err := c.echo.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(d) // the stall itself
	if err := c.echo.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// Summary is for a test's log.
func (c *Control) Summary() string {
	longest := time.Duration(0)
	stalls := c.Stalls()
	for _, s := range stalls {
		longest = max(longest, s.End.Sub(s.Start))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("control: asked %d times, %d stalls of %s or more, the longest %s, %d of them times that a member got no processor",
		c.asked, len(stalls), stallLength, longest.Round(time.Millisecond), c.starved)
}

// serveEcho is the other side. It ends with the tests, by the spawner.
func serveEcho() {
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Getenv(echoVariable), "0"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
	fmt.Print(listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "echo:", err)
			os.Exit(1)
		}
		go func() { _, _ = io.Copy(conn, conn) }()
	}
}

func testBinary(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}
