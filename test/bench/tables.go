package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// writeTables writes all that was measured for people.
func (r *report) writeTables(w io.Writer) error {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d cores, %s, kernel %s, %s, load average at the start %s\n", m.CPU, m.Cores, m.OS, m.Kernel, m.Go, m.LoadBefore)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(format string, args ...any) { fmt.Fprintf(t, format+"\t\n", args...) }
	if len(r.Rows) > 0 {
		line("\npath\tcallers\tcontender\tper second\t± %%\tp50 µs\tp99 µs\tp999 µs\tCPU µs\tallocs\terrors\tover limit")
		for _, one := range r.Rows {
			allocs := ""
			if one.Allocs != nil {
				allocs = short(*one.Allocs)
			}
			line("%s\t%d\t%s\t%.0f\t%.0f\t%s\t%s\t%s\t%s\t%s\t%d\t%d", one.Path, one.Callers, one.Contender, one.PerSecond,
				50*one.Spread, short(one.P50), short(one.P99), short(one.P999), short(one.CPU), allocs, one.Errors, one.Over)
		}
	}
	if len(r.Ratios) > 0 {
		line("\npath\tcallers\tcontender\ttimes as many a second as\tmedian\tlowest\thighest")
		for _, one := range r.Ratios {
			line("%s\t%d\t%s\t%s\t%s\t%s\t%s", one.Path, one.Callers, one.Contender, one.Over,
				short(one.Median), short(one.Lowest), short(one.Highest))
		}
	}
	if len(r.Memory) > 0 {
		line("\nmemory\tkeys\tkey bytes\tbytes an entry\tbeyond its key\tresident MiB")
		for _, one := range r.Memory {
			line("%s\t%d\t%d\t%.1f\t%.1f\t%.1f", one.Contender, one.Keys, one.KeyBytes, one.PerEntry, one.BeyondKey, mib(one.Resident))
		}
	}
	if len(r.Floods) > 0 {
		line("\nmade-up keys\tper second\tkeys\terrors\tresident MiB before\tafter\tothers' p50 µs before\tduring\tp99 before\tduring")
		for _, one := range r.Floods {
			line("%s\t%.0f\t%d\t%d\t%.1f\t%.1f\t%s\t%s\t%s\t%s", one.Contender, one.PerSecond, one.Keys, one.Errors,
				mib(one.ResidentBefore), mib(one.ResidentAfter), short(one.Before.P50), short(one.During.P50),
				short(one.Before.P99), short(one.During.P99))
		}
	}
	if len(r.Scales) > 0 {
		line("\nmembers\tload\tper second\tper CPU second\tp50 µs\tp99 µs\tCPU µs\twrites a call\tbytes a call\tidle CPU %%\tidle writes/s\tidle bytes/s\tcopies\terrors\tover limit")
		for _, one := range r.Scales {
			if !one.Settled {
				one.Load += ", not settled"
			}
			line("%d\t%s\t%.0f\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\t%.0f\t%.0f\t%d\t%d\t%d", one.Members, one.Load, one.PerSecond, one.PerCPUSecond,
				known(one.P50), known(one.P99), short(one.CPU), short(one.Writes), short(one.Bytes),
				short(one.IdleCPU), one.IdleWrites, one.IdleBytes, one.Copies, one.Errors, one.Over)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, s := range r.Skipped {
		fmt.Fprintln(w, "skipped", s)
	}
	for _, one := range r.Rows {
		if one.TakeOvers > 0 {
			fmt.Fprintf(w, "%s, %s, %d callers: %d slots were taken over from members that fell silent, as on a busy machine\n",
				one.Contender, one.Path, one.Callers, one.TakeOvers)
		}
		if one.First != "" {
			fmt.Fprintf(w, "%s, %s, %d callers: first error: %s\n", one.Contender, one.Path, one.Callers, one.First)
		}
	}
	return nil
}

// short writes three digits.
func short(f float64) string {
	if f == 0 {
		return "0"
	}
	return strconv.FormatFloat(f, 'g', max(3, digits(f)), 64)
}

// known is empty where nothing was measured.
func known(f float64) string {
	if f == 0 {
		return ""
	}
	return short(f)
}

// digits before the point.
func digits(f float64) (n int) {
	for ; f >= 1; f /= 10 {
		n++
	}
	return n
}

func mib(b int64) float64 { return float64(b) / (1 << 20) }
