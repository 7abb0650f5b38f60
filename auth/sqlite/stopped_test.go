//go:build unix

package sqlite_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/sqlite"
	"go.uber.org/goleak"
)

// childEnv has the path of the keys where this program is the process that is stopped.
const childEnv = "PEERLIMIT_AUTH_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if err := child(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// child verifies each key that it reads and prints verdict and source.
func child(path string) error {
	store, err := sqlite.Open(context.Background(), path)
	if err != nil {
		return err
	}
	defer store.Close()
	a, err := auth.New(auth.Config{Store: store})
	if err != nil {
		return err
	}
	defer a.Close()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		r, err := a.Verify(context.Background(), in.Text())
		fmt.Println(r.Verdict, r.Source, err)
	}
	return in.Err()
}

// A process that has a key cached is stopped, the key is revoked by another, and the first is asked for it in the
// moment in which it runs again. They share nothing but the file: no broadcast reaches it.
func TestProcessThatWasStopped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	store := open(t, path)
	a, err := auth.New(auth.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()

	cmd := exec.Command(os.Args[0]) //nolint:gosec // this program
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewScanner(stdout)
	defer func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	ask := func(key string) string {
		if _, err := io.WriteString(stdin, key+"\n"); err != nil {
			t.Fatal(err)
		}
		if !answers.Scan() {
			t.Fatal("the process has ended", answers.Err())
		}
		return answers.Text()
	}

	rounds := 2
	switch {
	case testing.Short():
		rounds = 1
	case os.Getenv("PEERLIMIT_SOAK") != "":
		rounds = 10
	}
	for i := range rounds {
		issued, err := a.Create(t.Context(), auth.Spec{Project: "p"})
		if err != nil {
			t.Fatal(err)
		}
		key := issued.Secret.Reveal()
		if got := ask(key); !strings.HasPrefix(got, "VALID store") {
			t.Fatal(got)
		}
		if got := ask(key); !strings.HasPrefix(got, "VALID near") {
			t.Fatal(got)
		}
		signal(t, cmd, syscall.SIGSTOP)
		if _, err := a.Disable(t.Context(), issued.Key.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1100*time.Millisecond + time.Duration(i)*77*time.Millisecond)
		if _, err := io.WriteString(stdin, key+"\n"); err != nil { // waits for it in the pipe
			t.Fatal(err)
		}
		signal(t, cmd, syscall.SIGCONT)
		for range 20 {
			if !answers.Scan() {
				t.Fatal("the process has ended", answers.Err())
			}
			if got := answers.Text(); !strings.HasPrefix(got, "DISABLED") {
				t.Fatalf("round %d, after the stop: %s", i, got)
			}
			if _, err := io.WriteString(stdin, key+"\n"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		answers.Scan()
	}
}

func signal(t *testing.T, cmd *exec.Cmd, s syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}
