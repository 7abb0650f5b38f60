package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strings"
)

// Sizes of the plot, in pixels.
const (
	plotWidth  = 900
	labelWidth = 260
	barHeight  = 16
	titleSpace = 34
)

// From how many calls a second, as a power of ten, the plot's scale goes to
// where.
const lowestPower, highestPower = 2, 9

var colours = map[bool]string{true: "#1f6feb", false: "#8c959f"}

// writePlot writes an SVG: for each path and number of callers the calls a
// second of each contender, on a logarithmic scale.
func (r *report) writePlot(w io.Writer) error {
	var b strings.Builder
	y := 30
	text := func(x, y int, attributes, format string, args ...any) {
		fmt.Fprintf(&b, `<text x="%d" y="%d"%s>`, x, y, attributes)
		_ = xml.EscapeText(&b, []byte(fmt.Sprintf(format, args...))) // a Builder takes all
		b.WriteString("</text>\n")
	}
	text(10, 20, ` font-weight="bold"`, "calls a second, logarithmic, each step ten times as many: %s, %d cores", r.Machine.CPU, r.Machine.Cores)
	for rows := range panels(r.Rows) {
		y += titleSpace
		text(10, y-8, ` font-weight="bold"`, "%s, %d callers", rows[0].Path, rows[0].Callers)
		for power := lowestPower; power <= highestPower; power++ {
			x := barEnd(math.Pow(10, float64(power)))
			fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#d0d7de"/>`+"\n", x, y, x, y+len(rows)*barHeight)
		}
		for _, one := range rows {
			end := barEnd(one.PerSecond)
			colour := colours[strings.HasPrefix(one.Contender, "peerlimit")]
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", labelWidth, y+1, end-labelWidth, barHeight-3, colour)
			text(labelWidth-8, y+barHeight-4, ` text-anchor="end"`, "%s", one.Contender)
			text(end+6, y+barHeight-4, "", "%.0f%s", one.PerSecond, faults(one))
			y += barHeight
		}
	}
	_, err := fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">
<rect width="100%%" height="100%%" fill="#ffffff"/>
%s</svg>
`, plotWidth, y+20, b.String())
	return err
}

// panels yields the rows that stand next to each other and differ in the
// contender only.
func panels(rows []row) iter.Seq[[]row] {
	return func(yield func([]row) bool) {
		for len(rows) > 0 {
			first := rows[0]
			n := slices.IndexFunc(rows, func(one row) bool { return one.Path != first.Path || one.Callers != first.Callers })
			if n < 0 {
				n = len(rows)
			}
			if !yield(rows[:n]) {
				return
			}
			rows = rows[n:]
		}
	}
}

// faults are what makes a bar worth less than it is long.
func faults(one row) (text string) {
	if one.Over > 0 {
		text = fmt.Sprintf(", %d over the limit", one.Over)
	}
	if one.Errors > 0 {
		text += fmt.Sprintf(", %d errors", one.Errors)
	}
	return text
}

// barEnd is where a bar of so many calls a second ends.
func barEnd(perSecond float64) int {
	const room = plotWidth - labelWidth - 200 // for what is written behind the bar
	power := math.Log10(max(perSecond, 1)) - lowestPower
	power = min(max(power, 0), highestPower-lowestPower)
	return labelWidth + int(power*room/(highestPower-lowestPower))
}
