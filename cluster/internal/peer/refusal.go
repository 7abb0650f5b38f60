package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Reasons for which a connection is refused or ended, as peerlimit_cluster_frames_rejected_total counts them.
const (
	reasonLength  = "length"    // a frame too short or too long
	reasonMagic   = "magic"     // no hello where one belongs
	reasonHello   = "hello"     // a malformed one
	reasonType    = "type"      // a frame type nobody defined
	reasonVersion = "version"   // no common protocol version, or a frame of another than agreed
	reasonCluster = "cluster"   // another cluster's member
	reasonBoot    = "boot"      // meant for another process life
	reasonSelf    = "self"      // dialed itself
	reasonService = "service"   // a stream nobody serves
	reasonSecret  = "secret"    // TLS failed: another secret, certificate, cluster name, or no TLS at all
	reasonTimeout = "timeout"   // no complete hello in time
	reasonCut     = "truncated" // the connection ended inside a frame
	reasonCrowd   = "crowded"   // too many connections
	reasonPayload = "payload"   // a payload that can't be read
)

// Reasons lists every reason [Stats] counts rejections by.
func Reasons() []string {
	return []string{reasonLength, reasonMagic, reasonHello, reasonType, reasonVersion, reasonCluster, reasonBoot, reasonSelf,
		reasonService, reasonSecret, reasonTimeout, reasonCut, reasonCrowd, reasonPayload}
}

// refusal is an error that is counted by its reason.
type refusal struct {
	reason string
	err    error
}

func refuse(reason string, err error) *refusal { return &refusal{reason, err} }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// reasonOf classifies an error of a connection that was not yet authenticated.
func reasonOf(err error) string {
	var r *refusal
	var timeout net.Error
	switch {
	case errors.As(err, &r):
		return r.reason
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return reasonTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return reasonCut
	}
	return ""
}

// rejections counts by reason.
type rejections struct {
	mu     sync.Mutex
	counts map[string]uint64
}

func (r *rejections) add(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = make(map[string]uint64)
	}
	r.counts[reason]++
}

func (r *rejections) snapshot() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]uint64, len(r.counts))
	for k, v := range r.counts {
		out[k] = v
	}
	return out
}

// How long a refusal that was logged is not logged again, and how many are remembered.
const (
	logAgain  = 10 * time.Minute
	logMemory = 1024
)

// onceLog remembers what was logged of late, so that a flood of bad connections is a line, not a flood of lines.
type onceLog struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// first says whether key was not logged in the last ten minutes, and remembers that it is now.
func (o *onceLog) first(key string, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if at, ok := o.last[key]; ok && now.Sub(at) < logAgain {
		return false
	}
	if o.last == nil || len(o.last) >= logMemory {
		o.last = make(map[string]time.Time)
	}
	o.last[key] = now
	return true
}

// reject counts a refusal and logs it, once per source and reason.
func (t *Transport) reject(source, reason string, err error) {
	if t.logged.first(source+"\x00"+reason, time.Now()) {
		t.cfg.Logger.Warn("peer refused", "peer", source, "reason", reason, "error", err.Error())
	}
	t.rejected.add(reason)
}

// explain turns a refusing answer into an error for the dialer.
func explain(w welcome, own versionRange) error {
	switch w.verdict {
	case refusedCluster:
		return refuse(reasonCluster, errors.New("it belongs to another cluster"))
	case refusedVersion:
		return refuse(reasonVersion, fmt.Errorf("it speaks protocol versions %v, this member %v", w.versions, own))
	case refusedGone:
		return fmt.Errorf("%w (%v)", ErrPeerGone, w.boot)
	case refusedSelf:
		return refuse(reasonSelf, errors.New("the address is this member's own"))
	case refusedService:
		return refuse(reasonService, errors.New("it does not serve this stream"))
	case refusedBusy:
		return fmt.Errorf("%w: too many connections there", ErrBusy)
	}
	return nil
}
