package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/ratelimit"
)

func look(t *testing.T, h *Handler) (v liveView) {
	t.Helper()
	r := ask(h, "GET", "/v1/cluster/live")
	require.Equal(t, 200, r.StatusCode)
	body := text(t, r)
	assert.NotContains(t, body, "hash")
	assert.NotContains(t, body, ":null", "the page need not expect it")
	require.NoError(t, json.Unmarshal([]byte(body), &v))
	return v
}

func TestMembersFiguresAreAddedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const secret = "an-api-key-that-nobody-shall-read"
		// b is a member with a handler of its own, in another process so to speak.
		nodeB := newFakeNode()
		nodeB.members = []cluster.Member{{Name: "b", Boot: 0xbb}}
		nodeB.status.Possession = cluster.Possession{Slots: 8384}
		trafficB := NewTraffic()
		New(Config{Node: nodeB, Traffic: trafficB})

		node := newFakeNode()
		node.answer = func(ctx context.Context, to cluster.Member) ([]byte, error) {
			b, err := nodeB.handlers[kindReport](ctx, node.Self(), nil)
			assert.NotContains(t, string(b), secret, "no full key leaves its member")
			return b, err
		}
		traffic := NewTraffic()
		h := New(Config{Node: node, Traffic: traffic})
		for range 10 {
			decide(traffic, "p", secret, ratelimit.OutcomeAllowed)
			decide(trafficB, "p", secret, ratelimit.OutcomeDenied)
			decide(trafficB, "p", "<script>", ratelimit.OutcomeDegradedDenied)
			time.Sleep(time.Second)
		}
		v := look(t, h)
		assert.Equal(t, node.status.Ring, v.Status.Ring)
		assert.Equal(t, time.Now().UnixMilli(), v.TimeMS)
		o := v.Overall
		assert.Equal(t, totals{Decisions: 30, Denials: 20, Degraded: 10}, o.totals)
		assert.InDelta(t, 3, o.rates.Decisions, 0.01)
		assert.InDelta(t, 2, o.rates.Denials, 0.01)
		assert.InDelta(t, 1, o.rates.Degraded, 0.01)
		assert.Equal(t, 16384, o.Slots)
		assert.Equal(t, 3, o.Unprotected)
		assert.Empty(t, o.Unanswered)
		require.Len(t, o.Members, 2)
		assert.Equal(t, "a", o.Members[0].Name)
		assert.Equal(t, uint64(10), o.Members[0].totals.Decisions)
		assert.Equal(t, memberView{
			Name: "b", Boot: "00000000000000bb", Observed: true, Slots: 8384,
			totals: totals{Decisions: 20, Denials: 20, Degraded: 10}, rates: o.Members[1].rates,
		}, o.Members[1])
		require.Len(t, o.Hot, 2)
		assert.Equal(t, "an-api-key-t…", o.Hot[0].Key)
		assert.InEpsilon(t, 2, o.Hot[0].PerSecond, 0.1, "of both members")
		require.Len(t, o.Denied, 2)
	})
}

func TestMembersThatDoNotAnswerAreNamed(t *testing.T) {
	for name, answer := range map[string]func(context.Context, cluster.Member) ([]byte, error){
		"an error":  nil,
		"nonsense":  func(context.Context, cluster.Member) ([]byte, error) { return []byte(`{"report":7}`), nil },
		"not a bit": func(context.Context, cluster.Member) ([]byte, error) { return nil, nil },
		"no answer in time": func(ctx context.Context, _ cluster.Member) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				node := newFakeNode()
				node.answer = answer
				began := time.Now()
				v := look(t, New(Config{Node: node}))
				assert.LessOrEqual(t, time.Since(began), gatherWithin)
				assert.Equal(t, []string{"b"}, v.Overall.Unanswered)
				require.Len(t, v.Overall.Members, 1)
				assert.False(t, v.Overall.Members[0].Observed, "it has no Traffic")
				assert.Equal(t, 8000, v.Overall.Slots)
			})
		})
	}
}

// However many look, members are asked once a second.
func TestManyWhoLookCostNoMoreThanOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newFakeNode()
		node.answer = func(context.Context, cluster.Member) ([]byte, error) {
			time.Sleep(100 * time.Millisecond)
			return []byte("{}"), nil
		}
		h := New(Config{Node: node})
		for round := range 3 {
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() { ask(h, "GET", "/v1/cluster/live") })
			}
			wg.Wait()
			assert.Equal(t, int64(round+1), node.calls.Load())
			time.Sleep(gatherAge)
		}
	})
}

func TestMembersThatHaveGoneAreShownForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newFakeNode()
		h := New(Config{Node: node})
		event := func(kind cluster.EventKind, name string, boot uint64) {
			node.watcher(cluster.Event{Kind: kind, Member: cluster.Member{Name: name, Boot: boot}})
			time.Sleep(time.Minute)
		}
		event(cluster.MemberJoined, "c", 1)
		event(cluster.MemberLost, "c", 1)
		event(cluster.MemberLeft, "d", 1)
		event(cluster.MemberLost, "b", 7) // whose next life is a member already
		assert.Equal(t, []goneView{{"d", "left", 120_000}, {"c", "dead", 180_000}}, look(t, h).Gone)
		event(cluster.MemberJoined, "c", 2)
		assert.Equal(t, []goneView{{"d", "left", 180_000}}, look(t, h).Gone)
		time.Sleep(goneShown)
		assert.Empty(t, look(t, h).Gone)
		for i := range 3 * goneKept {
			event(cluster.MemberLost, fmt.Sprint("m", i), 1)
		}
		assert.LessOrEqual(t, len(h.member.Load().gone.list), goneKept)
	})
}

// What another member says is shown as text, and is no more than it may be.
func FuzzReport(f *testing.F) {
	whole, err := json.Marshal(memberReport{Observed: true, Report: report{Hot: []keyRate{{"p", "k", 1, 2}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"report":{"hot":[{},{}],"denied":null}}`))
	f.Add([]byte(`{"report":{"rates":{"decisions_per_second":1e999}}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		node := newFakeNode()
		node.answer = func(context.Context, cluster.Member) ([]byte, error) { return answer, nil }
		r := ask(New(Config{Node: node}), "GET", "/v1/cluster/live")
		body := text(t, r)
		var v liveView
		if err := json.Unmarshal([]byte(body), &v); r.StatusCode != 200 || err != nil {
			t.Fatalf("%q made %d %s", answer, r.StatusCode, body)
		}
		if len(v.Overall.Hot) > keysShown || len(v.Overall.Denied) > keysShown || strings.Contains(body, "<") {
			t.Errorf("%q made %s", answer, body)
		}
	})
}
