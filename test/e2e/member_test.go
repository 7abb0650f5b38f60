package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Member is one process of cmd/node serve. Its methods may be called by several
// goroutines; those that end the test may not, they are for the test's own.
type Member struct {
	Name   string
	Gossip string // host:port, as are the next three; known once it is ready
	Peer   string
	KV     string
	HTTP   string

	t       testing.TB
	command *exec.Cmd
	space   *Host // nil: the network namespace of the tests
	client  *http.Client
	token   string
	log     *memberLog
	ready   chan string   // its ready line
	gone    chan struct{} // closed when the process has ended
	exit    error         // what Wait said; read it after gone
}

// MemberOptions is what differs between members.
type MemberOptions struct {
	Name    string   // the node ID
	Cluster string   // its name
	Join    []string // seeds
	Args    []string // more flags of serve
	Env     []string // more of the environment, as KEY=value
	Token   string   // what requests to it carry
	Host    *Host    // a network namespace to run in
	Bind    string   // the host to bind to; 127.0.0.1, or the Host's address
	Binary  string   // of another version of cmd/node; the one of these sources unless given
}

// startTimeout is generous: the machine may be busy with other tests.
const startTimeout = 30 * time.Second

// StartMember starts a member and waits until it serves.
func StartMember(t testing.TB, o MemberOptions) *Member {
	t.Helper()
	m := LaunchMember(t, o)
	m.AwaitReady()
	return m
}

// LaunchMember starts a member and does not wait. It is stopped, and its log
// shown if the test failed, when the test ends.
func LaunchMember(t testing.TB, o MemberOptions) *Member {
	t.Helper()
	secrets.add(o.Token)
	bind := o.Bind
	if bind == "" {
		bind = "127.0.0.1"
		if o.Host != nil {
			bind = o.Host.Addr
		}
	}
	free := net.JoinHostPort(bind, "0")
	args := []string{"serve", "--node-id=" + o.Name, "--cluster=" + o.Cluster, "--log-level=debug", "--key-store=memory",
		"--bind=" + free, "--peer-bind=" + free, "--kv-bind=" + free, "--http=127.0.0.1:0"}
	for _, seed := range o.Join {
		args = append(args, "--join="+seed)
	}
	if leases := os.Getenv(leasesVariable); leases != "" {
		args = append(args, "--leases="+leases)
	}
	args = append(args, o.Args...) // the last of a flag counts
	m := &Member{Name: o.Name, t: t, token: o.Token, space: o.Host,
		ready: make(chan string, 1), gone: make(chan struct{})}
	binary := cmp.Or(o.Binary, nodeBinary)
	m.command = exec.Command(binary, args...)
	if o.Host != nil {
		m.command = o.Host.Command(binary, args...)
	}
	m.command.Env = append(append(cleanEnvironment(), processors()...), o.Env...)
	m.client = &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 512, DialContext: m.dial},
	}
	m.launch()
	t.Cleanup(m.cleanup)
	return m
}

// leasesVariable says, where it is "off", that members do without leases.
const leasesVariable = "PEERLIMIT_TEST_LEASES"

// processors gives a member one processor where up to twelve of them share a few,
// as a replica in a deployment has one of its own. Each with threads for all of
// them, members that start keep those that serve from running for 100 ms and
// more, which nobody's timings allow for.
func processors() []string {
	if runtime.NumCPU() >= 8 {
		return nil
	}
	return []string{"GOMAXPROCS=1"}
}

// cleanEnvironment is the tests' own without settings meant for them.
func cleanEnvironment() (kept []string) {
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "PEERLIMIT_") {
			kept = append(kept, variable)
		}
	}
	return kept
}

func (m *Member) launch() {
	m.t.Helper()
	file, err := os.CreateTemp(m.t.TempDir(), m.Name+"-*.log")
	if err != nil {
		m.t.Fatal(err)
	}
	m.log = &memberLog{file: file, changed: make(chan struct{})}
	m.command.Stderr = m.log
	stdout, writeEnd, err := os.Pipe()
	if err != nil {
		m.t.Fatal(err)
	}
	m.command.Stdout = writeEnd
	if err := processes.start(m.command); err != nil {
		m.t.Fatalf("start %s: %v", m.Name, err)
	}
	_ = writeEnd.Close()
	stepAside(m.PID())
	go func() {
		defer stepBack(m.PID())
		for {
			changed := m.log.watch()
			if _, connected := findLine(m.Log(), []string{"peer connected"}); connected {
				return
			}
			select {
			case <-changed:
			case <-m.gone:
				return
			case <-time.After(startTimeout):
				return
			}
		}
	}()
	var reading sync.WaitGroup
	reading.Go(func() {
		defer stdout.Close()
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			_, _ = fmt.Fprintln(m.log, "stdout:", lines.Text())
			select {
			case m.ready <- lines.Text():
			default:
			}
		}
	})
	go func() {
		defer close(m.gone)
		m.exit = processes.wait(m.command)
		reading.Wait()
	}()
}

// dial connects to the member from where it runs.
func (m *Member) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if m.space != nil {
		return m.space.Dial(ctx, network, address)
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, address)
}

// AwaitReady waits for the ready line and for /readyz to agree.
func (m *Member) AwaitReady() {
	m.t.Helper()
	deadline := time.Now().Add(startTimeout)
	select {
	case line := <-m.ready:
		if err := m.parseReady(line); err != nil {
			m.t.Fatalf("%s: %v", m.Name, err)
		}
	case <-m.gone:
		m.t.Fatalf("%s ended before it was ready: %v", m.Name, m.exit)
	case <-time.After(startTimeout):
		m.t.Fatalf("%s was not ready after %s", m.Name, startTimeout)
	}
	Eventually(m.t, time.Until(deadline), func() error { return m.Ready() })
}

func (m *Member) parseReady(line string) error {
	fields := strings.Fields(line)
	for i, field := range []struct {
		name string
		to   *string
	}{{"ready", nil}, {"gossip", &m.Gossip}, {"peer", &m.Peer}, {"kv", &m.KV}, {"http", &m.HTTP}} {
		if i >= len(fields) {
			return fmt.Errorf("ready line %q has no %s", line, field.name)
		}
		name, value, _ := strings.Cut(fields[i], "=")
		if name != field.name || (field.to != nil && value == "") {
			return fmt.Errorf("ready line %q has %q where %s is expected", line, fields[i], field.name)
		}
		if field.to != nil {
			*field.to = value
		}
	}
	return nil
}

// Ready asks /readyz once.
func (m *Member) Ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	status, _, body, err := m.Request(ctx, http.MethodGet, "/readyz", nil)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s: /readyz: %d %s", m.Name, status, body)
	}
	return nil
}

// PID is the process's ID.
func (m *Member) PID() int { return m.command.Process.Pid }

// Alive reports whether the process has not ended.
func (m *Member) Alive() bool {
	select {
	case <-m.gone:
		return false
	default:
		return true
	}
}

// Signal sends the process a signal.
func (m *Member) Signal(s syscall.Signal) {
	m.t.Helper()
	if err := m.command.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		m.t.Fatalf("signal %s to %s: %v", s, m.Name, err)
	}
}

// Kill ends the process as a crash would, and waits until it is gone.
func (m *Member) Kill() {
	m.t.Helper()
	m.Signal(syscall.SIGKILL)
	m.AwaitExit(10 * time.Second)
}

// Stall stops the process where it stands; Resume lets it go on.
func (m *Member) Stall() { m.t.Helper(); m.Signal(syscall.SIGSTOP) }

// Resume is the end of Stall.
func (m *Member) Resume() { m.t.Helper(); m.Signal(syscall.SIGCONT) }

// StallFor stalls the process for d.
func (m *Member) StallFor(d time.Duration) {
	m.t.Helper()
	m.Stall()
	time.Sleep(d) // not to wait for something: the stall is what is tested
	m.Resume()
}

// Leave asks the process to leave and waits until it has. It must exit with 0.
func (m *Member) Leave() {
	m.t.Helper()
	m.Signal(syscall.SIGTERM)
	m.AwaitExit(30 * time.Second)
	if code := m.ExitCode(); code != 0 {
		m.t.Fatalf("%s left with exit code %d: %v", m.Name, code, m.exit)
	}
}

// AwaitExit waits until the process has ended.
func (m *Member) AwaitExit(timeout time.Duration) {
	m.t.Helper()
	select {
	case <-m.gone:
	case <-time.After(timeout):
		m.t.Fatalf("%s had not ended after %s", m.Name, timeout)
	}
}

// ExitCode is the code the process ended with, -1 by a signal. It must be gone.
func (m *Member) ExitCode() int { return m.command.ProcessState.ExitCode() }

// Log returns what the process has logged, its stdout included.
func (m *Member) Log() string { return m.log.String() }

// AwaitLog waits until the log has a line with all of words.
func (m *Member) AwaitLog(timeout time.Duration, words ...string) {
	m.t.Helper()
	end := time.After(timeout)
	for {
		changed := m.log.watch()
		if _, ok := findLine(m.Log(), words); ok {
			return
		}
		select {
		case <-changed:
		case <-end:
			m.t.Fatalf("%s: no line with %q in its log after %s", m.Name, words, timeout)
		}
	}
}

func findLine(log string, words []string) (string, bool) {
	for line := range strings.Lines(log) {
		found := true
		for _, word := range words {
			found = found && strings.Contains(line, word)
		}
		if found {
			return line, true
		}
	}
	return "", false
}

// cleanup ends what still runs and, if the test failed, shows what it said.
func (m *Member) cleanup() {
	if m.Alive() {
		_ = m.command.Process.Signal(syscall.SIGCONT) // a stalled process dies of SIGKILL, but waits for its turn
		_ = m.command.Process.Kill()
		<-m.gone
	}
	m.client.CloseIdleConnections()
	secrets.search("the log of "+m.Name+" in "+m.t.Name(), []byte(m.Log()))
	if m.t.Failed() {
		m.t.Logf("--- %s (pid %d), %v, the end of its log:\n%s", m.Name, m.PID(), m.command.ProcessState, m.log.tail(100))
	}
	_ = m.log.file.Close()
}

// memberLog keeps what a process writes, in a file, for a member may say more
// than memory should hold.
type memberLog struct {
	mu      sync.Mutex
	file    *os.File
	changed chan struct{} // guarded by mu; closed at the next write
}

func (l *memberLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.file.Write(b)
	close(l.changed)
	l.changed = make(chan struct{})
	return n, err
}

// watch returns a channel that is closed at the next write.
func (l *memberLog) watch() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *memberLog) String() string {
	text, err := os.ReadFile(filepath.Clean(l.file.Name()))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (l *memberLog) tail(lines int) string {
	text := []byte(l.String())
	for i, n := len(text), 0; i > 0; i-- {
		if text[i-1] == '\n' {
			if n++; n > lines {
				return string(text[i:])
			}
		}
	}
	return string(text)
}

// Request sends one request and returns the answer whole.
func (m *Member) Request(ctx context.Context, method, path string, body []byte) (status int, header http.Header, answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+m.HTTP+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	if m.token != "" {
		request.Header.Set("Authorization", "Bearer "+m.token)
	}
	response, err := m.client.Do(request)
	if err != nil {
		return 0, nil, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	if s := response.StatusCode; s >= 400 && s != http.StatusTooManyRequests || method == http.MethodGet {
		secrets.search("the answer to "+method+" "+path, answer)
	}
	return response.StatusCode, response.Header, answer, err
}
