package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// demoMember is a child process: this program again, as serve.
type demoMember struct {
	name    string
	command *exec.Cmd
	stdin   io.Closer // the child stops when this closes, so also when the demo dies
	log     *os.File
	ready   map[string]string // the addresses of its ready line
	client  *client
	killed  atomic.Bool   // its SIGKILL is on its way: send it nothing more
	gone    chan struct{} // closed when the process has ended
	exit    error         // why; read it after gone
}

// stopDelay is how long a member may take to leave when the demo ends.
const stopDelay = 5 * time.Second

// startMembers starts them, one after the other, and waits until all see all.
func (d *demo) startMembers(ctx context.Context) error {
	for i := range demoMembers {
		m, err := d.startMember(ctx, i)
		if err != nil {
			return err
		}
		d.members = append(d.members, m)
		d.view.say("started %s (pid %d), http %s", m.name, m.pid(), m.ready["http"])
	}
	return d.awaitMembers(ctx)
}

// startMember starts the ith member, which joins one that lives, if any does.
func (d *demo) startMember(ctx context.Context, i int) (*demoMember, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	m := &demoMember{name: "member-" + strconv.Itoa(i+1)}
	d.logs++
	arguments := []string{"serve", "--stop-with-stdin", "--log-level=info", "--cluster=demo-" + strconv.Itoa(os.Getpid()),
		"--node-id=" + m.name, "--key-store=sqlite:" + filepath.Join(d.dir, "keys.db"),
		"--bind=127.0.0.1:0", "--peer-bind=127.0.0.1:0", "--kv-bind=127.0.0.1:0", "--http=127.0.0.1:0"}
	for _, other := range d.members {
		if !other.killed.Load() {
			arguments = append(arguments, "--join="+other.ready["gossip"])
			break
		}
	}
	if err := m.start(ctx, self, arguments, filepath.Join(d.dir, fmt.Sprintf("%s-%d.log", m.name, d.logs))); err != nil {
		return nil, fmt.Errorf("%s: %w", m.name, err)
	}
	return m, nil
}

// awaitMembers returns when all members see all.
func (d *demo) awaitMembers(ctx context.Context) error {
	for _, m := range d.members {
		if err := m.waitForMembers(ctx, demoMembers); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// start returns when the child has printed that it serves.
func (m *demoMember) start(ctx context.Context, program string, arguments []string, logPath string) error {
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	m.log = log
	m.command = exec.Command(program, arguments...)
	m.command.Env = withoutSettings(os.Environ())
	m.command.Stderr = log
	if m.stdin, err = m.command.StdinPipe(); err != nil {
		return errors.Join(err, log.Close())
	}
	stdout, err := m.command.StdoutPipe()
	if err != nil {
		return errors.Join(err, log.Close())
	}
	if err := m.command.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	lines := make(chan string, 1)
	m.gone = make(chan struct{})
	go func() {
		defer close(m.gone)
		defer log.Close()
		scanner := bufio.NewScanner(stdout)
		for scanner.Scan() {
			select {
			case lines <- scanner.Text():
			default: // nothing after the ready line is needed
			}
		}
		m.exit = m.command.Wait()
	}()
	select {
	case line := <-lines:
		if m.ready, err = parseReady(line); err == nil {
			m.client = &client{base: "http://" + m.ready["http"], http: &http.Client{
				Timeout:   5 * time.Second,
				Transport: &http.Transport{MaxIdleConnsPerHost: demoCallers},
			}}
			return nil
		}
	case <-m.gone:
		err = fmt.Errorf("ended before it was ready: %w", m.exit)
	case <-ctx.Done():
		err = fmt.Errorf("was not ready in time: %w", context.Cause(ctx))
	}
	_ = m.command.Process.Kill()
	_ = m.stdin.Close()
	<-m.gone
	return err
}

// withoutSettings keeps what the user has set for a member of his own away from
// the demo's.
func withoutSettings(environment []string) (kept []string) {
	for _, variable := range environment {
		if !strings.HasPrefix(variable, "PEERLIMIT_") {
			kept = append(kept, variable)
		}
	}
	return kept
}

func (m *demoMember) pid() int { return m.command.Process.Pid }

// kill ends the process as a crash would, and returns when it is gone.
func (m *demoMember) kill() error {
	m.killed.Store(true)
	if err := m.command.Process.Kill(); err != nil {
		return err
	}
	<-m.gone
	return nil
}

// waitForMembers returns when m sees n members alive and all that it serves has
// a copy at another one.
func (m *demoMember) waitForMembers(ctx context.Context, n int) error {
	for {
		alive, unprotected := 0, 0
		answer, _, err := m.client.do(ctx, http.MethodGet, "/v1/cluster", nil, http.StatusOK)
		if err == nil {
			var view cluster.Status
			if err := json.Unmarshal(answer, &view); err != nil {
				return err
			}
			unprotected = view.Possession.Unprotected
			for _, other := range view.Members {
				if other.State == cluster.StateAlive {
					alive++
				}
			}
		}
		if alive == n && unprotected == 0 {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-m.gone:
			return fmt.Errorf("ended: %w", m.exit)
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("sees %d of %d members, and has %d slots without a copy elsewhere", alive, n, unprotected)
			}
			return err
		}
	}
}

// stopMembers asks the members to leave, one after the other as in a deploy, so
// that each has somebody to hand over to; it ends those that do not, and reports
// the ones that did not end well. It is right also after a failed start.
func (d *demo) stopMembers() error {
	var errs []error
	for _, m := range d.members {
		m.client.http.CloseIdleConnections()
		if m.killed.Load() {
			<-m.gone
		} else if err := m.stop(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
		_ = m.stdin.Close()
	}
	return errors.Join(errs...)
}

func (m *demoMember) stop() error {
	if err := m.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		_ = m.command.Process.Kill()
	}
	select {
	case <-m.gone:
		return m.exit
	case <-time.After(stopDelay):
		_ = m.command.Process.Kill()
		<-m.gone
		return fmt.Errorf("had not left %s after SIGTERM", stopDelay)
	}
}
