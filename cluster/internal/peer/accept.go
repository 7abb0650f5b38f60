package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

var errCrowded = errors.New("too many connections")

// accept is the acceptor, until the listener closes.
func (t *Transport) accept() {
	var pause time.Duration
	for {
		nc, err := t.listener.Accept()
		if err != nil {
			if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, most likely: it may pass.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			if t.logged.first("accept", time.Now()) {
				t.cfg.Logger.Error("peer accept failed", "error", err.Error())
			}
			select {
			case <-time.After(pause):
			case <-t.ctx.Done():
				return
			}
			continue
		}
		pause = 0
		e, evicted := t.gate.enter(nc)
		if evicted != nil {
			t.reject(evicted.source, reasonCrowd, errCrowded)
			_ = evicted.nc.Close()
		}
		if e == nil || !t.spawn(func() { t.admit(e) }) {
			_ = nc.Close()
		}
	}
}

// admit finds out who a new connection is, and gives it to its lane or stream; or closes it.
func (t *Transport) admit(e *entrant) {
	ctx, cancel := context.WithTimeout(t.ctx, t.cfg.HandshakeTimeout)
	defer cancel()
	if deadline, ok := ctx.Deadline(); ok {
		_ = e.nc.SetDeadline(deadline)
	}
	err := t.hear(ctx, e)
	evicted := !t.gate.leave(e)
	if err == nil {
		return
	}
	_ = e.nc.Close()
	if reason := reasonOf(err); !evicted && reason != "" && t.ctx.Err() == nil {
		t.reject(e.source, reason, err)
	}
}

// hear reads the hello and answers it.
func (t *Transport) hear(ctx context.Context, e *entrant) error {
	nc, err := t.security.secure(ctx, e.nc, false)
	if err != nil {
		return err
	}
	head, payload, err := readOpening(nc)
	if err != nil {
		return err
	}
	h, err := parseHello(head, payload)
	if err != nil {
		return err
	}
	verdict, version := t.judge(h)
	if verdict == welcomed && !t.takePlace() {
		verdict, version = refusedBusy, 0
	}
	answer := welcome{version: version, versions: t.cfg.versions, cluster: t.cluster, to: h.from, verdict: verdict, boot: t.cfg.Self}
	_, err = nc.Write(answer.append(make([]byte, 0, maxHello)))
	if verdict != welcomed {
		return refusedHello(h, verdict, t.cfg.versions)
	}
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err == nil && !t.gate.leave(e) {
		err = errCrowded
	}
	if err != nil {
		t.leavePlace()
		return err
	}
	if h.lane == laneStream {
		t.startStream(h, nc)
		return nil
	}
	t.attachAccepted(h, nc, version)
	return nil
}

// refusedHello is what the log says of a hello that was refused.
func refusedHello(h hello, v verdict, own versionRange) error {
	switch v {
	case refusedCluster:
		return refuse(reasonCluster, errors.New("it belongs to another cluster"))
	case refusedVersion:
		return refuse(reasonVersion, fmt.Errorf("it speaks protocol versions %v, this member %v", h.versions, own))
	case refusedGone:
		return refuse(reasonBoot, fmt.Errorf("it wants boot %v, which is gone from here", h.to))
	case refusedSelf:
		return refuse(reasonSelf, errors.New("this member dialed itself"))
	case refusedService:
		return refuse(reasonService, fmt.Errorf("it wants stream %q, which nobody serves here", h.service))
	}
	return refuse(reasonCrowd, errCrowded)
}
