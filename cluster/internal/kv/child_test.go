package kv

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const childEnv = "PEERLIMIT_KV_TEST_MEMBER"

func TestMain(m *testing.M) {
	if s := os.Getenv(childEnv); s != "" {
		if err := runChild(s); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	_ = flag.Set("test.parallel", "4") // in place of its default: they mostly wait
	os.Exit(leaks(m.Run()))
}

// leaks looks for goroutines that are left. A probe of memberlist's, which its
// shutdown doesn't wait for, ends within half a second, go-redis's redialing
// within one.
func leaks(code int) int {
	var err error
	for range 10 {
		if err = goleak.Find(); err == nil {
			return code
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return max(code, 1)
}

// child is a member in a process of its own, which can be killed for good.
type child struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	in    *json.Encoder
	once  sync.Once
}

type childConfig struct {
	Name, Secret string
	Boot         uint64
	Peers        []childPeer
}

type childPeer struct {
	Boot   uint64
	Gossip string
	Dial   string
}

// childOrder is a line on its standard input: new peers, or a question.
type childOrder struct {
	Peers []childPeer
	Ask   string
}

func runChild(arg string) error {
	var cfg childConfig
	if err := json.Unmarshal([]byte(arg), &cfg); err != nil {
		return err
	}
	g, err := Listen("127.0.0.1:0", "")
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var mu sync.Mutex // guards cfg.Peers
	peers := func() []childPeer {
		mu.Lock()
		defer mu.Unlock()
		return cfg.Peers
	}
	s, err := Start(Config{
		ClusterName: cfg.Name,
		Secrets:     [][]byte{[]byte(cfg.Secret)},
		Gossip:      g,
		Boot:        cfg.Boot,
		Peers: func() []Peer {
			var ps []Peer
			for _, p := range peers() {
				ps = append(ps, Peer{Boot: p.Boot, Gossip: p.Gossip})
			}
			return ps
		},
		DialStream: func(ctx context.Context, boot uint64) (net.Conn, error) {
			for _, p := range peers() {
				if p.Boot == boot {
					var d net.Dialer
					return d.DialContext(ctx, "tcp", p.Dial)
				}
			}
			return nil, errors.New("no such member")
		},
	})
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go s.ServeStream(conn)
		}
	}()
	fmt.Println(g.Addr(), ln.Addr())
	in := json.NewDecoder(os.Stdin)
	for {
		var o childOrder
		if err := in.Decode(&o); err != nil {
			return s.Close()
		}
		switch o.Ask {
		case "ready":
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			fmt.Println(s.Ready(ctx))
			cancel()
		case "rss":
			debug.FreeOSMemory()
			fmt.Println(residentKiB())
		case "":
			mu.Lock()
			cfg.Peers = o.Peers
			mu.Unlock()
			fmt.Println("ok")
		}
	}
}

func residentKiB() int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return -1
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		return -1
	}
	return kib
}

// cpuTime is what a process has used so far.
func cpuTime(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

func (c *child) ask(t testing.TB, o childOrder) string {
	t.Helper()
	if err := c.in.Encode(o); err != nil {
		t.Fatal(err)
	}
	if !c.lines.Scan() {
		t.Fatalf("the member's process said nothing: %v", c.lines.Err())
	}
	return c.lines.Text()
}

// kill is SIGKILL.
func (c *child) kill() {
	c.once.Do(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
}

func (n *testNet) childPeers(self uint64) []childPeer {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ps []childPeer
	for boot, m := range n.members {
		if boot != self {
			ps = append(ps, childPeer{Boot: boot, Gossip: m.gossip, Dial: m.dial})
		}
	}
	return ps
}

// startProcess starts a member in a process of its own.
func (n *testNet) startProcess() *testMember {
	n.t.Helper()
	n.mu.Lock()
	n.next++
	m := &testMember{boot: n.next}
	n.mu.Unlock()
	arg, err := json.Marshal(childConfig{
		Name: n.t.Name(), Secret: string(n.secret), Boot: m.boot, Peers: n.childPeers(m.boot),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(arg))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	m.child = &child{cmd: cmd, lines: bufio.NewScanner(stdout), in: json.NewEncoder(stdin)}
	n.t.Cleanup(m.child.kill)
	if !m.child.lines.Scan() {
		n.t.Fatal("the member's process did not start")
	}
	if _, err := fmt.Sscan(m.child.lines.Text(), &m.gossip, &m.dial); err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	n.members[m.boot] = m
	n.mu.Unlock()
	n.tellChildren()
	if got := m.child.ask(n.t, childOrder{Ask: "ready"}); got != "<nil>" {
		n.t.Fatal(got)
	}
	return m
}

// tellChildren tells the processes who the members are.
func (n *testNet) tellChildren() {
	n.mu.Lock()
	var all []*testMember
	for _, m := range n.members {
		if m.child != nil {
			all = append(all, m)
		}
	}
	n.mu.Unlock()
	for _, m := range all {
		m.child.ask(n.t, childOrder{Peers: n.childPeers(m.boot)})
	}
}

// killProcess kills a member's process. The membership sees it after a second.
func (n *testNet) killProcess(m *testMember) {
	m.child.kill()
	time.AfterFunc(time.Second, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.members, m.boot)
	})
}

func TestKilledMember(t *testing.T) {
	needSoak(t)
	t.Parallel()
	n := newTestNet(t)
	const count = 2000
	// The oldest is olric's coordinator: it is the one that dies first.
	oldest := n.startProcess()
	a, b := n.start(nil), n.start(nil)
	n.tellChildren()
	n.whole()
	n.fill(a, count)
	for round, victim := range []*testMember{oldest, nil} {
		if victim == nil { // the second time it is the youngest
			victim = n.startProcess()
			n.whole()
			time.Sleep(2 * time.Second) // partitions move to it
		}
		n.killProcess(victim)
		began := time.Now()
		eventually(t, 30*time.Second, func() error {
			for _, m := range []*testMember{a, b} {
				if st := m.Stats(); st.Members != 2 {
					return fmt.Errorf("members: %+v", st)
				}
			}
			return nil
		})
		t.Logf("round %d: death seen after %v", round, time.Since(began))
		for _, m := range []*testMember{a, b} {
			if missing := n.missing(m, count); missing > 0 {
				t.Fatalf("round %d: %d of %d are missing", round, missing, count)
			}
		}
		t.Logf("round %d: all there after %v", round, time.Since(began))
		// Copies are made good: with two members left each has everything.
		eventually(t, 15*time.Second, func() error {
			for _, m := range []*testMember{a, b} {
				if held := m.held(); held < count {
					return fmt.Errorf("member %d holds %d of %d: %+v", m.boot, held, count, m.Stats())
				}
			}
			return nil
		})
		t.Logf("round %d: two copies of all after %v", round, time.Since(began))
	}
	n.leave(b)
	if missing := n.missing(a, count); missing > 0 {
		t.Fatalf("at the end %d of %d are missing", missing, count)
	}
}
