package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// Bounds.
const (
	// MaxKey is the longest key in bytes.
	MaxKey = 4096 + 128
	// MaxValue is the longest value in bytes.
	MaxValue = 1 << 20
	// MaxTTL is the longest time to live.
	MaxTTL = 366 * 24 * time.Hour
	// TombstoneTTL is for how long a delete keeps what was under way from
	// bringing the value back.
	TombstoneTTL = time.Minute
	// DefaultMaxBytes is the default of Config.MaxBytes.
	DefaultMaxBytes = 128 << 20
)

// Peer is another live member, as the cluster's membership knows it.
type Peer struct {
	Boot   uint64 // its boot ID
	Gossip string // host:port of its KV's gossip
}

// Config of a member's KV.
type Config struct {
	// ClusterName keeps two clusters apart: 1 to 255 bytes.
	ClusterName string
	// Secrets encrypt the gossip: the first is used, all are accepted. None:
	// plain.
	Secrets [][]byte
	// Gossip is where olric's memberlist listens, from [Listen]. The store
	// owns it from Start on.
	Gossip *Gossip
	// Boot is this member's boot ID.
	Boot uint64
	// Peers returns the other live members. It must return at once and be
	// safe for concurrent use.
	Peers func() []Peer
	// DialStream opens a byte stream through the peer port to the member
	// with that boot ID, which gives its end to [Store.ServeStream].
	DialStream func(ctx context.Context, boot uint64) (net.Conn, error)
	// Call has that member's [Store.ServeCall] answer, at most 64 calls of a
	// kind at a time. An empty answer without an error means that the member
	// can't be asked this way, and has done nothing. nil: all goes by streams.
	Call func(ctx context.Context, boot uint64, kind CallKind, request []byte) ([]byte, error)
	// MaxBytes is how much this member holds, [DefaultMaxBytes] by default,
	// keys and bookkeeping included. Beyond it, what is soonest to expire
	// goes.
	MaxBytes int64
	// Logger is silent by default.
	Logger *slog.Logger
	// Available is called when the store has become usable: at first, and after
	// each time that it was not. nil: nobody is told.
	Available func()

	timings timings // zero: the defaults; tests shorten them
	clock   *clock  // nil: one of its own; tests set it wrong
}

// timings are how long things take. All are set here, none is inherited.
type timings struct {
	call    time.Duration // a call without a shorter deadline
	dial    time.Duration // olric's client: opening a connection
	read    time.Duration // olric's client: waiting for an answer
	boot    time.Duration // a request waits for a member that is starting
	start   time.Duration // olric must be usable after its start
	push    time.Duration // the coordinator sends the partition table again
	balance time.Duration // partitions that belong elsewhere are moved
	leave   time.Duration // telling the others that we leave
	probe   time.Duration // the watchdog looks
	broken  time.Duration // unusable for so long: started anew
	settle  time.Duration // copies are made good after the members changed
	trust   time.Duration // after that, owners of keys are believed to have them
	pace    time.Duration // pause between batches of copies
}

func (t timings) orDefaults() timings {
	d := timings{
		call:    250 * time.Millisecond,
		dial:    300 * time.Millisecond,
		read:    300 * time.Millisecond,
		boot:    200 * time.Millisecond,
		start:   10 * time.Second,
		push:    time.Second,
		balance: time.Second,
		leave:   time.Second,
		probe:   500 * time.Millisecond,
		broken:  5 * time.Second,
		settle:  2 * time.Second,
		trust:   10 * time.Second,
		pace:    2 * time.Millisecond,
	}
	if t == (timings{}) {
		return d
	}
	return t
}

// partitionCount is how many parts olric divides the keys into; it can't be
// changed in a running cluster. A write locks its partition while the backup is
// asked, so that few partitions make writers wait for each other; for every
// partition the coordinator looks at each owner and backup, one after the other,
// whenever the members change and once a second, so that many make that slow (see
// lengths.go for what it is spared).
//
// Measured with three members on 2 cores, values of 500 bytes:
//
//	partitions                            31     127     271    1021
//	a member is in everybody's table  10-12  11-140 110-145 215-330 ms
//	idle process, resident              25.9    25.8    26.4    28.3 MiB
//
// The rate of 16 callers did not depend on it. With 127, 16 callers rarely meet in
// one.
const partitionCount = 127

func (cfg Config) validate() error {
	switch {
	case cfg.ClusterName == "" || len(cfg.ClusterName) > 255:
		return fmt.Errorf("kv: Config.ClusterName has %d bytes: want 1 to 255", len(cfg.ClusterName))
	case cfg.Gossip == nil:
		return errors.New("kv: Config.Gossip is nil")
	case cfg.Boot == 0:
		return errors.New("kv: Config.Boot is 0")
	case cfg.Peers == nil:
		return errors.New("kv: Config.Peers is nil")
	case cfg.DialStream == nil:
		return errors.New("kv: Config.DialStream is nil")
	case cfg.MaxBytes < 0:
		return fmt.Errorf("kv: Config.MaxBytes %d: want 0 (the default) or more", cfg.MaxBytes)
	}
	for i, s := range cfg.Secrets {
		if len(s) == 0 {
			return fmt.Errorf("kv: Config.Secrets[%d] is empty", i)
		}
	}
	return nil
}

// Errors of the store's calls.
var (
	// ErrUnavailable: the store can't be used now, or did not answer in time.
	ErrUnavailable = errors.New("kv: unavailable")
	// ErrWrongKind: the key is a counter's, or a value's where a counter is
	// wanted.
	ErrWrongKind = errors.New("kv: the key holds another kind")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("kv: closed")
)
