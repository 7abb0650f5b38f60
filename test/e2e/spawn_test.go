package e2e

import (
	"maps"
	"os/exec"
	"runtime"
	"slices"
	"sync"
)

// processes starts every process of the tests and knows those that run.
var processes = newSpawner()

// spawner starts processes from one thread that lives as long as the tests do:
// the kernel ends a child when the thread that started it ends, which is right
// only if that means the end of the tests.
type spawner struct {
	requests chan func()
	stopped  chan struct{}

	mu      sync.Mutex
	running map[*exec.Cmd]bool // guarded by mu
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan func()), stopped: make(chan struct{}), running: map[*exec.Cmd]bool{}}
	go func() {
		defer close(s.stopped)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for request := range s.requests {
			request()
		}
	}()
	return s
}

// start starts c so that it dies with the tests, in a process group of its own.
func (s *spawner) start(c *exec.Cmd) error {
	dieWithParent(c)
	result := make(chan error)
	s.requests <- func() {
		err := c.Start()
		if err == nil {
			s.mu.Lock()
			s.running[c] = true
			s.mu.Unlock()
		}
		result <- err
	}
	return <-result
}

// wait waits for a process that start started.
func (s *spawner) wait(c *exec.Cmd) error {
	err := c.Wait()
	s.mu.Lock()
	delete(s.running, c)
	s.mu.Unlock()
	return err
}

// all returns those that run.
func (s *spawner) all() []*exec.Cmd {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.running))
}

// left kills what still runs, and returns what it was.
func (s *spawner) left() (commands []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.running {
		commands = append(commands, c.String())
		_ = c.Process.Kill()
	}
	return commands
}

func (s *spawner) close() {
	close(s.requests)
	<-s.stopped
}
