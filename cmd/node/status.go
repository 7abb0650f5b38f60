package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// statusCommand shows a running member's view of its cluster.
type statusCommand struct {
	JSON bool `name:"json" help:"Print one JSON object instead of a table."`
	clientFlags
}

// Run asks for the cluster and for the number of keys it holds.
func (c *statusCommand) Run(ctx context.Context, env *environment) error {
	member, err := c.connect()
	if err != nil {
		return err
	}
	answer, _, err := member.do(ctx, http.MethodGet, "/v1/cluster", nil, http.StatusOK)
	if err != nil {
		return err
	}
	size, _, err := member.do(ctx, http.MethodGet, "/v1/ratelimit", nil, http.StatusOK)
	if err != nil {
		return err
	}
	var keys keysView
	if err := json.Unmarshal(size, &keys); err != nil {
		return fmt.Errorf("%s: the answer is not a number of keys: %w", c.HTTP, err)
	}
	if c.JSON {
		// Passed on as it came, so that nothing a newer member says is lost.
		fmt.Fprintf(env.stdout, "{\"cluster\":%s,\"keys\":%d,\"partial\":%t}\n", trimSpace(answer), keys.Keys, keys.Partial)
		return nil
	}
	var view cluster.Status
	if err := json.Unmarshal(answer, &view); err != nil {
		return fmt.Errorf("%s: the answer is not a cluster: %w", c.HTTP, err)
	}
	return writeStatus(env.stdout, &view, &keys)
}

func writeStatus(w io.Writer, v *cluster.Status, keys *keysView) error {
	atLeast := ""
	if keys.Partial {
		atLeast = "at least " // a member did not answer
	}
	fmt.Fprintf(w, "cluster %s, seen by %s, up %s\n", v.Name, v.Self, milliseconds(v.UptimeMS).Round(time.Second))
	fmt.Fprintf(w, "ring %s of %d slots, %s%d keys held, kv %s (breaker %s)\n",
		v.Ring.Version, v.Ring.Slots, atLeast, keys.Keys, v.KV.State, v.KV.Breaker)
	p := &v.Possession
	fmt.Fprintf(w, "this member serves %d slots, %d without a full copy elsewhere; %d taken over, %d moved, %d merges; %d operations wait\n",
		p.Slots, p.Unprotected, p.TakeOvers, p.Moves, p.Merges, p.Waiting)
	if !v.Ready {
		fmt.Fprintf(w, "not ready: %s\n", v.Reason)
	}
	if v.Short {
		fmt.Fprintln(w, "short: fewer members are alive than --min-members asks for")
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MEMBER\tSTATE\tSLOTS\tBREAKER\tPEER\tZONE\tVERSION")
	for _, m := range v.Members {
		breaker := v.Breakers[m.Name]
		if m.Name == v.Self {
			breaker = "self"
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n",
			m.Name, m.State, m.OwnedSlots, dash(breaker), dash(m.Peer), dash(m.Zone), dash(m.Version))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	// A breaker may outlive its member for a while.
	for _, name := range slices.Sorted(maps.Keys(v.Breakers)) {
		if !slices.ContainsFunc(v.Members, func(m cluster.MemberStatus) bool { return m.Name == name }) {
			fmt.Fprintf(w, "breaker of %s, which is no member: %s\n", name, v.Breakers[name])
		}
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func trimSpace(b []byte) []byte { return bytes.TrimSpace(b) }
