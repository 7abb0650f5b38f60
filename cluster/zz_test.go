package cluster
import ("testing";"time";"context";"fmt";"sync";"sync/atomic";"slices")
func TestZZ(t *testing.T) {
	ctx := context.Background()
	_, kvs := kvNodes(t, 3)
	value := make([]byte, 500)
	for i := range 1000 { if err := kvs[0].Set(ctx, fmt.Sprint(i), value, time.Hour); err != nil { t.Fatal(err) } }
	stop := make(chan struct{})
	var maxGap atomic.Int64
	go func(){ last := time.Now(); for { select { case <-stop: return; default: }; time.Sleep(time.Millisecond); now := time.Now(); g := now.Sub(last); last = now; if int64(g) > maxGap.Load() { maxGap.Store(int64(g)); if g > 50*time.Millisecond { fmt.Println("gap", g) } } } }()
	began0 := time.Now()
	var next atomic.Int64
	took := make([][]time.Duration, 16)
	var wg sync.WaitGroup
	for c := range 16 { wg.Go(func(){ for i := int(next.Add(1)); i <= 60000; i = int(next.Add(1)) { b := time.Now(); _, _, err := kvs[0].Get(ctx, fmt.Sprint(i%1000)); d := time.Since(b); if err != nil { fmt.Println(time.Since(began0), d, err) } else if d > 100*time.Millisecond { fmt.Println(time.Since(began0), "slow", d) }; took[c] = append(took[c], d) } }) }
	wg.Wait(); close(stop)
	all := slices.Concat(took...); slices.Sort(all)
	fmt.Println("took", time.Since(began0), "p50", all[len(all)/2], "p99", all[len(all)*99/100], "max", all[len(all)-1], "gap", time.Duration(maxGap.Load()))
}
