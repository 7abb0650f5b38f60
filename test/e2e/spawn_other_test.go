//go:build !linux

package e2e

import (
	"os/exec"
	"syscall"
)

func dieWithParent(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func stepAside(int) {}
func stepBack(int)  {}

func zombie(int) bool { return false }
