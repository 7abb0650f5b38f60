package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

func dieWithParent(c *exec.Cmd) {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Setpgid, c.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
}

// less is by how much a process that only loads has less of the processors than
// those that serve.
const less = 10

// stepAside gives a process the processor time that others leave. In a deployment
// it loads on processors of its own, and keeps nobody who serves from running.
func stepAside(pid int) {
	if os.Geteuid() == 0 { // else it could not step back
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, pid, less)
	}
}

// stepBack ends that.
func stepBack(pid int) {
	if os.Geteuid() != 0 {
		return
	}
	for range 2 { // a thread gives what it has to those that it makes meanwhile
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		for _, thread := range threads {
			if tid, err := strconv.Atoi(thread.Name()); err == nil {
				_ = syscall.Setpriority(syscall.PRIO_PROCESS, tid, 0)
			}
		}
	}
}

// zombie reports whether a process has ended and nobody has asked for its exit
// code: whose child it was, is gone.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return bytes.HasPrefix(rest, []byte("Z"))
}
