package main

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"
)

// The kernel counts the time of another process in hundredths of a second
// (USER_HZ, proc_pid_stat(5)).
const tick = 10 * time.Millisecond

// cpuTime is the processor time, user and system, that this process and the
// others have taken so far. Of others that /proc does not show it is 0.
func cpuTime(others []int) time.Duration {
	var own syscall.Rusage
	var sum time.Duration
	if syscall.Getrusage(syscall.RUSAGE_SELF, &own) == nil {
		sum = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	}
	for _, pid := range others {
		sum += processTime(pid)
	}
	return sum
}

func processTime(pid int) time.Duration {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	return parseStat(stat)
}

// parseStat reads user and system time, fields 14 and 15, of a stat line. The
// second field is a name in parentheses, and may have any characters.
func parseStat(stat []byte) time.Duration {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const user, system = 14 - 3, 15 - 3
	if len(fields) <= system {
		return 0
	}
	u, _ := strconv.ParseInt(string(fields[user]), 10, 64)
	s, _ := strconv.ParseInt(string(fields[system]), 10, 64)
	return time.Duration(u+s) * tick
}

// residentBytes is a process's memory that is not paged out, 0 where /proc does
// not show it.
func residentBytes(pid int) int64 {
	return procField(pid, "status", "VmRSS:") * 1024
}

// written returns how many writes, on sockets most of them, a process has made,
// and of how many bytes.
func written(pid int) (writes, size int64) {
	return procField(pid, "io", "syscw:"), procField(pid, "io", "wchar:")
}

// procField returns a number of a process's file in /proc, 0 where it isn't
// there.
func procField(pid int, file, name string) int64 {
	return fieldOf("/proc/"+strconv.Itoa(pid)+"/"+file, name)
}

// fieldOf returns the number that stands behind name in a file.
func fieldOf(file, name string) int64 {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(content) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			if fields := bytes.Fields(rest); len(fields) > 0 {
				n, _ := strconv.ParseInt(string(fields[0]), 10, 64)
				return n
			}
		}
	}
	return 0
}
