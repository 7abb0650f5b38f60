package main

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
)

// machine says where the figures are from.
type machine struct {
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Memory  int64  `json:"memory_bytes,omitempty"`
	OS      string `json:"os"`
	Kernel  string `json:"kernel,omitempty"`
	Go      string `json:"go"`
	Redis   string `json:"redis,omitempty"`
	Version string `json:"version,omitempty"` // of the source, where it is known
	// LoadBefore is the load average of the last minute at the start. Well above
	// 0: others use the machine, and the figures are theirs too.
	LoadBefore string `json:"load_before,omitempty"`
}

func thisMachine() machine {
	m := machine{
		Cores: runtime.GOMAXPROCS(0), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
		CPU:        firstField("/proc/cpuinfo", "model name"),
		Memory:     fieldOf("/proc/meminfo", "MemTotal:") * 1024,
		Kernel:     content("/proc/sys/kernel/osrelease"),
		LoadBefore: strings.SplitN(content("/proc/loadavg"), " ", 2)[0],
	}
	if path := redisPath(); path != "" {
		if out, err := exec.Command(path, "--version").Output(); err == nil {
			m.Redis = strings.TrimSpace(string(out))
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				m.Version = s.Value
			}
		}
	}
	return m
}

func content(file string) string {
	b, _ := os.ReadFile(file)
	return strings.TrimSpace(string(b))
}

// firstField returns what the first line that begins with name has after a
// colon.
func firstField(file, name string) string {
	b, _ := os.ReadFile(file)
	for line := range bytes.Lines(b) {
		if before, after, ok := strings.Cut(string(line), ":"); ok && strings.TrimSpace(before) == name {
			return strings.TrimSpace(after)
		}
	}
	return ""
}
