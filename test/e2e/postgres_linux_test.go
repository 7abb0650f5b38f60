package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// PostgreSQL is a server of a test's own, on loopback, that can be stopped and
// started again. It logs every statement that it is asked to run.
type PostgreSQL struct {
	t       testing.TB
	bin     string // the directory of its programs
	dir     string
	port    string
	owner   *syscall.Credential // nil: the tests' own
	log     *os.File
	command *exec.Cmd // nil while it is stopped
	starts  int
}

// StartPostgreSQL starts a server with an empty database for the time of the
// test, or skips the test where there is none to start.
func StartPostgreSQL(t testing.TB) *PostgreSQL {
	t.Helper()
	if os.Getenv("PEERLIMIT_TEST_POSTGRES") == "" {
		t.Skip("starts PostgreSQL's programs: set PEERLIMIT_TEST_POSTGRES, as for the tests that need a server")
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	require.NoError(t, err)
	if len(found) == 0 {
		t.Skip("needs PostgreSQL (Debian: postgresql)")
	}
	slices.Sort(found)
	p := &PostgreSQL{t: t, bin: filepath.Dir(found[len(found)-1]), port: freePorts(t, 1)[0]}
	p.dir, err = os.MkdirTemp("", "peerlimit-postgres-")
	require.NoError(t, err)
	t.Cleanup(func() {
		p.Stop()
		secrets.search("what PostgreSQL was asked in "+t.Name(), []byte(p.Log(0)))
		require.NoError(t, os.RemoveAll(p.dir))
	})
	if os.Geteuid() == 0 { // it refuses to run as root
		postgres, err := user.Lookup("postgres")
		if err != nil {
			t.Skipf("PostgreSQL does not run as root, and there is no other user for it: %v", err)
		}
		uid, err := strconv.Atoi(postgres.Uid)
		require.NoError(t, err)
		gid, err := strconv.Atoi(postgres.Gid)
		require.NoError(t, err)
		require.NoError(t, os.Chown(p.dir, uid, gid))
		p.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	p.log, err = os.Create(filepath.Join(p.dir, "log"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.log.Close() })
	out, err := p.program("initdb", "-D", p.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput()
	require.NoError(t, err, "initdb: %s", out)
	p.Start()
	return p
}

func (p *PostgreSQL) data() string { return filepath.Join(p.dir, "data") }

func (p *PostgreSQL) program(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(p.bin, name), args...)
	c.Dir = p.dir
	if p.owner != nil {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: p.owner}
	}
	return c
}

// Start starts the server and waits until it answers.
func (p *PostgreSQL) Start() {
	p.t.Helper()
	p.command = p.program("postgres", "-D", p.data(), "-h", "127.0.0.1", "-p", p.port, "-k", p.dir, "-c", "fsync=off",
		"-c", "shared_buffers=16MB", "-c", "log_statement=all", "-c", "log_line_prefix=%a ")
	p.command.Stdout, p.command.Stderr = p.log, p.log
	require.NoError(p.t, processes.start(p.command))
	p.starts++
	Eventually(p.t, startTimeout, func() error {
		if n := strings.Count(p.Log(0), "ready to accept connections"); n < p.starts {
			return fmt.Errorf("PostgreSQL is not ready: %s", p.Log(0))
		}
		return nil
	})
}

// Stop stops the server, whoever is connected to it, and waits until it is gone.
// It may be called twice.
func (p *PostgreSQL) Stop() {
	p.t.Helper()
	if p.command == nil {
		return
	}
	_ = p.command.Process.Signal(syscall.SIGINT) // its "fast shutdown"
	kill := time.AfterFunc(30*time.Second, func() { _ = p.command.Process.Kill() })
	_ = processes.wait(p.command)
	kill.Stop()
	p.command = nil
}

// Address is what a client that names itself connects to.
func (p *PostgreSQL) Address(client string) string {
	return "postgres://postgres@127.0.0.1:" + p.port + "/postgres?sslmode=disable&pool_max_conns=8&application_name=" + client
}

// Log is what the server has logged from a position on.
func (p *PostgreSQL) Log(from int) string {
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[min(from, len(text)):])
}
