package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// kindReport is the call by which members ask one another for their figures.
const kindReport = "admin:report"

const (
	gatherWithin = 500 * time.Millisecond // how long other members may take
	gatherAge    = time.Second            // answers younger than this are shown again
)

// memberReport is what a member tells of itself.
type memberReport struct {
	Observed   bool               `json:"observed"` // it counts decisions
	Report     report             `json:"report"`
	Possession cluster.Possession `json:"possession"`
}

// memberView is a memberReport as the page gets it.
type memberView struct {
	Name     string `json:"name"`
	Boot     string `json:"boot"`
	Observed bool   `json:"observed"`
	totals
	rates
	Slots       int `json:"slots"`       // that it serves
	Unprotected int `json:"unprotected"` // of these, without a second full copy
}

// overall is all members' figures together.
type overall struct {
	totals
	rates
	Slots       int          `json:"slots"`
	Unprotected int          `json:"unprotected"`
	Hot         []keyRate    `json:"hot"`
	Denied      []keyRate    `json:"denied"`
	Members     []memberView `json:"members"`    // those that answered, by name
	Unanswered  []string     `json:"unanswered"` // names of the others
}

// self is what this member tells of itself.
func (m *member) self() memberReport {
	r := memberReport{Possession: m.node.Status().Possession}
	if m.traffic != nil {
		r.Observed = true
		r.Report = m.traffic.report()
	}
	return r
}

// handle answers other members.
func (m *member) handle() {
	m.node.Handle(kindReport, func(context.Context, cluster.Member, []byte) ([]byte, error) {
		b, err := json.Marshal(m.self())
		if err != nil {
			return nil, fmt.Errorf("admin: report: %w", err)
		}
		return b, nil
	})
}

// overall asks all members at once, or tells what they said within the last
// second, so that many who look cost the members no more than one. The error is
// the context's.
func (m *member) overall(ctx context.Context) (*overall, error) {
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("admin: %w", ctx.Err())
	}
	if m.last != nil && time.Since(m.lastAt) < gatherAge {
		return m.last, nil
	}
	// Others may wait for this answer too, so it is not for ctx to end it.
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), gatherWithin)
	defer cancel()
	m.last, m.lastAt = m.gather(asking), time.Now()
	return m.last, nil
}

func (m *member) gather(ctx context.Context) *overall {
	type answer struct {
		from   cluster.Member
		report memberReport
		err    error
	}
	self := m.node.Self()
	members := m.node.Members()
	answers := make(chan answer, len(members))
	for _, to := range members {
		if to.Boot == self.Boot {
			answers <- answer{from: to, report: m.self()}
			continue
		}
		go func() { // ends within gatherWithin, and is waited for below
			a := answer{from: to}
			b, err := m.node.Call(ctx, to, kindReport, nil)
			if err == nil {
				err = json.Unmarshal(b, &a.report)
			}
			a.err = err
			answers <- a
		}()
	}
	o := &overall{Members: []memberView{}, Unanswered: []string{}}
	for range members {
		a := <-answers
		if a.err != nil {
			o.Unanswered = append(o.Unanswered, a.from.Name)
			continue
		}
		o.add(a.from, &a.report)
	}
	slices.Sort(o.Unanswered)
	slices.SortFunc(o.Members, func(a, b memberView) int { return strings.Compare(a.Name+a.Boot, b.Name+b.Boot) })
	o.Hot, o.Denied = shownOf(o.Hot), shownOf(o.Denied)
	return o
}

func (o *overall) add(from cluster.Member, r *memberReport) {
	v := memberView{
		Name: from.Name, Boot: fmt.Sprintf("%016x", from.Boot), Observed: r.Observed,
		totals: r.Report.Totals, rates: r.Report.Rates,
		Slots: r.Possession.Slots, Unprotected: r.Possession.Unprotected,
	}
	o.Members = append(o.Members, v)
	o.totals.Decisions += v.totals.Decisions
	o.totals.Denials += v.totals.Denials
	o.totals.Degraded += v.totals.Degraded
	o.rates.Decisions += v.rates.Decisions
	o.rates.Denials += v.rates.Denials
	o.rates.Degraded += v.rates.Degraded
	o.Slots += v.Slots
	o.Unprotected += v.Unprotected
	o.Hot = merge(o.Hot, r.Report.Hot)
	o.Denied = merge(o.Denied, r.Report.Denied)
}

// merge adds the rates of keys that another member has too.
func merge(list, more []keyRate) []keyRate {
	for _, k := range more[:min(len(more), keysShown)] {
		i := slices.IndexFunc(list, func(have keyRate) bool { return have.Hash == k.Hash })
		if i < 0 {
			list = append(list, k)
			continue
		}
		list[i].PerSecond += k.PerSecond
	}
	return list
}

// shownOf is the list as it is shown: the first ones, without their hashes.
func shownOf(list []keyRate) []keyRate {
	shown := append([]keyRate{}, fastest(list, keysShown)...)
	for i := range shown {
		shown[i].Hash = 0
	}
	return shown
}
