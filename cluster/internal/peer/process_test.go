//go:build unix

package peer

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startProcess starts a member in a process of its own.
func startProcess(t *testing.T) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childBoot+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(line)
}

func TestSignals(t *testing.T) {
	for _, c := range []struct {
		name   string
		signal syscall.Signal
		within time.Duration // generous: the machine may be busy
	}{
		{"killed", syscall.SIGKILL, 500 * time.Millisecond},
		{"stopped", syscall.SIGSTOP, 2 * time.Second}, // 0.8 s of silence
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd, addr := startProcess(t)
			var mu sync.Mutex
			lost := make(map[Lane]bool)
			a := start(t, 1, func(cfg *Config) {
				cfg.Secrets = secretsOf("s")
				cfg.Down = func(l Loss) { mu.Lock(); defer mu.Unlock(); lost[l.Lane] = true }
			})
			a.SetPeers(map[Boot]Peer{2: {Node: "child", Addr: addr}})
			eventually(t, "connected", func() bool { return a.Connected(2, LaneOps) && a.Connected(2, LaneControl) })
			began := time.Now()
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the losses are told", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return lost[LaneOps] && lost[LaneControl]
			})
			if took := time.Since(began); took > c.within {
				t.Errorf("told after %v", took)
			} else {
				t.Logf("told after %v", took)
			}
		})
	}
}
