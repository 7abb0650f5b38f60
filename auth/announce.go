package auth

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// announceTries is how often the cluster's record is asked to take a change. It answers within 250 ms.
	announceTries = 4
	// announceTimeout bounds the broadcast. Who has not acknowledged by then is waited out.
	announceTimeout = confirmedFor
)

// announcement is the broadcast of a change: the key's digest, its position in the cluster's record, and its revision
// in the store.
type announcement struct {
	digest                          Digest
	incarnation, position, revision uint64
}

const announcementSize = 1 + len(Digest{}) + 3*8

func (m *announcement) encode() []byte {
	b := append(make([]byte, 0, announcementSize), 1) // the version
	b = append(b, m.digest[:]...)
	return appendWords(b, []uint64{m.incarnation, m.position, m.revision})
}

var errAnnouncement = errors.New("auth: malformed announcement")

func parseAnnouncement(b []byte) (m announcement, err error) {
	if len(b) != announcementSize || b[0] != 1 {
		return m, fmt.Errorf("%w: %d bytes, want %d", errAnnouncement, len(b), announcementSize)
	}
	n := 1 + copy(m.digest[:], b[1:])
	m.incarnation = binary.LittleEndian.Uint64(b[n:])
	m.position = binary.LittleEndian.Uint64(b[n+8:])
	m.revision = binary.LittleEndian.Uint64(b[n+16:])
	return m, nil
}

// heard takes in an announcement. When it returns this member no longer uses what it had of the key.
func (a *Authenticator) heard(payload []byte) {
	m, err := parseAnnouncement(payload)
	if err != nil {
		a.log.Warn("announcement of a changed key rejected", slog.Any("error", err))
		return
	}
	a.learn(&m)
	a.stats.changes.Add(1)
}

// learn marks the key first and then removes it from the caches; see near.put.
func (a *Authenticator) learn(m *announcement) {
	f := m.digest.fingerprint()
	a.view.told(f, m.incarnation, m.position, m.revision)
	a.forget([]uint64{f}, false)
}

// announce makes a change, which is in the store already, known to every member, and returns when no member can act
// by what it knew before: those reached have forgotten it, and of the others every confirmation has run out.
//
// It goes on when ctx is done, as far as telling is concerned: the change is made. Only the wait for those that were
// not reached then ends early, with ctx's error.
func (a *Authenticator) announce(ctx context.Context, d Digest, revision uint64, began time.Time) (Receipt, error) {
	m := announcement{digest: d, revision: revision}
	a.learn(&m) // this member first, whatever becomes of the rest
	telling := context.WithoutCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	if a.shared != nil {
		wg.Go(func() {
			c, cancel := context.WithTimeout(telling, sharedTimeout)
			defer cancel()
			if err := a.shared.Delete(c, a.sharedKey(&d)); err != nil {
				a.stats.sharedErrors.Add(1) // what is left there is recognised as old
			}
		})
	}
	published := a.publish(telling, &m)
	committed := a.clock.read()
	c, cancel := context.WithTimeout(telling, announceTimeout)
	receipt := a.peers.broadcast(c, a.kind(), m.encode())
	cancel()

	var err error
	if published != nil || len(receipt.Unreached) > 0 {
		err = a.settle(ctx, committed)
	}
	if published != nil {
		err = errors.Join(fmt.Errorf("%w: %w", ErrNotAnnounced, published), err)
	}
	receipt.Took = a.clock.now().Sub(began)
	a.log.Debug("key changed", slog.Any("sha256", d), slog.Int("reached", receipt.Reached),
		slog.Int("members", receipt.Members), slog.Duration("took", receipt.Took))
	return receipt, err
}

// publish adds the change to the cluster's record.
func (a *Authenticator) publish(ctx context.Context, m *announcement) (err error) {
	op := changelogOp{publish: true, fingerprint: m.digest.fingerprint(), nonce: newNonce()}
	for range announceTries {
		var r changelogResult
		if r, err = a.changelog(ctx, op); err == nil {
			m.incarnation, m.position = r.incarnation, r.position
			return nil
		}
		// It may have been added all the same, and then is again: twice is as good as once.
	}
	return err
}

// settle waits until every confirmation that was asked for before committed has run out.
func (a *Authenticator) settle(ctx context.Context, committed moment) error {
	left := settleFor - time.Duration(a.clock.read().mono-committed.mono)
	if left <= 0 {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-a.ctx.Done():
		return ErrClosed
	}
}
