package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// demoView is what the demo shows: on a terminal a table that is drawn over
// itself while a round runs, elsewhere the same table once, and with --json
// nothing.
type demoView struct {
	out  io.Writer
	live bool
}

func newDemoView(stdout io.Writer, silent bool) *demoView {
	if silent {
		return &demoView{out: io.Discard}
	}
	return &demoView{out: stdout, live: isTerminal(stdout)}
}

// isTerminal reports whether w understands the few ANSI sequences of a live
// table.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (v *demoView) say(format string, args ...any) {
	fmt.Fprintf(v.out, format+"\n", args...)
}

// follow shows the round's table while run runs it, and its last state.
func (v *demoView) follow(load *demoLoad, run func() demoRound) demoRound {
	fmt.Fprintln(v.out)
	start := time.Now()
	done := make(chan struct{})
	var drawing sync.WaitGroup
	if v.live {
		drawing.Go(func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					v.redraw(v.table(load, start))
				case <-done:
					return
				}
			}
		})
	}
	result := run()
	close(done)
	drawing.Wait()
	fmt.Fprint(v.out, v.table(load, start), "\n")
	return result
}

// redraw writes the table and puts the cursor back to where it began.
func (v *demoView) redraw(table string) {
	const eraseToEndOfLine = "\x1b[K"
	lines := strings.Count(table, "\n")
	fmt.Fprintf(v.out, "%s\x1b[%dA", strings.ReplaceAll(table, "\n", eraseToEndOfLine+"\n"), lines)
}

func (v *demoView) table(load *demoLoad, start time.Time) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "member\tstate\tsent\tallowed\tdenied\terrors\t")
	for i, m := range load.members {
		state := "serving"
		if m.killed.Load() {
			state = "killed"
		}
		c := &load.counts[i]
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t\n",
			m.name, state, c.sent.Load(), c.allowed.Load(), c.denied.Load(), c.errors.Load())
	}
	all := load.totals()
	fmt.Fprintf(w, "all\t%.2fs\t%d\t%d\t%d\t%d\t\n",
		time.Since(start).Seconds(), all.Sent, all.Allowed, all.Denied, all.Errors)
	if err := w.Flush(); err != nil { // a strings.Builder does not fail
		panic(err)
	}
	return b.String()
}
