package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

const (
	// starveEvery is how often members are looked at.
	starveEvery = 50 * time.Millisecond
	// starved is the part of that time which a thread of a member has to have
	// waited for a processor. Three members on two processors that are busy
	// wait a third of the time; those that wait for more than this can't keep
	// what they promise each other for 150 ms.
	starved = 0.7
)

// watch notes when a member wanted to run and the machine, which runs all of
// them, did not let it: what the kernel counts as the time that its threads were
// ready and waited. Nothing that a member does wrong, but to be busy, counts.
func (c *Control) watch() {
	defer close(c.watched)
	waited := map[string]int64{}
	last := time.Now()
	ticker := time.NewTicker(starveEvery)
	defer ticker.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-ticker.C:
		}
		now := time.Now()
		most := int64(float64(now.Sub(last)) * starved)
		found := false
		for _, command := range processes.all() {
			if command.Process == c.echo {
				continue
			}
			for thread, wait := range waits(command) {
				before, known := waited[thread]
				waited[thread] = wait
				found = found || known && wait-before > most
			}
		}
		if found {
			// What waited for the member goes on for as long as a call may take.
			c.mu.Lock()
			c.stalls = append(c.stalls, Span{last, now.Add(slowCall)})
			c.starved++
			c.mu.Unlock()
		}
		last = now
	}
}

// waits returns for how long each thread has been ready without running, ns.
func waits(command *exec.Cmd) map[string]int64 {
	dir := fmt.Sprintf("/proc/%d/task/", command.Process.Pid)
	threads, _ := os.ReadDir(dir)
	all := make(map[string]int64, len(threads))
	for _, thread := range threads {
		stat, err := os.ReadFile(dir + thread.Name() + "/schedstat")
		if fields := bytes.Fields(stat); err == nil && len(fields) == 3 {
			if n, err := strconv.ParseInt(string(fields[1]), 10, 64); err == nil {
				all[thread.Name()] = n
			}
		}
	}
	return all
}
