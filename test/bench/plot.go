package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
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
	var panel rowKey
	var top int
	grid := func(bottom int) {
		for power := lowestPower; power <= highestPower && bottom > top; power++ {
			x := barEnd(math.Pow(10, float64(power)))
			fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#d0d7de"/>`+"\n", x, top, x, bottom)
		}
	}
	for _, one := range r.Rows {
		if key := (rowKey{path: one.Path, callers: one.Callers}); key != panel {
			grid(y)
			panel = key
			y += titleSpace
			text(10, y-8, ` font-weight="bold"`, "%s, %d callers", one.Path, one.Callers)
			top = y
		}
		ours := strings.HasPrefix(one.Contender, "peerlimit")
		text(labelWidth-8, y+barHeight-4, ` text-anchor="end"`, "%s", one.Contender)
		end := barEnd(one.PerSecond)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", labelWidth, y+1, end-labelWidth, barHeight-3, colours[ours])
		note := ""
		if one.Over > 0 {
			note = fmt.Sprintf(", %d over the limit", one.Over)
		}
		if one.Errors > 0 {
			note += fmt.Sprintf(", %d errors", one.Errors)
		}
		text(end+6, y+barHeight-4, "", "%.0f%s", one.PerSecond, note)
		y += barHeight
	}
	grid(y)
	_, err := fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">
<rect width="100%%" height="100%%" fill="#ffffff"/>
%s</svg>
`, plotWidth, y+20, b.String())
	return err
}

// barEnd is where a bar of so many calls a second ends.
func barEnd(perSecond float64) int {
	const room = plotWidth - labelWidth - 200 // for what is written behind the bar
	power := math.Log10(max(perSecond, 1)) - lowestPower
	power = min(max(power, 0), highestPower-lowestPower)
	return labelWidth + int(power*room/(highestPower-lowestPower))
}
