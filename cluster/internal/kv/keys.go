package kv

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// listTimeout bounds how long a member takes to list its keys.
const listTimeout = 10 * time.Second

// maxKeys bounds a listing.
const maxKeys = 1 << 20

// Keys returns the keys with that prefix that hold a value, on any member. With
// an error it returns what could be had.
func (s *Store) Keys(ctx context.Context, prefix string) ([]string, error) {
	var mu sync.Mutex // guards seen
	seen := make(map[string]struct{})
	err := s.askEach(ctx, askKeys, prefix, func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		if len(seen) < maxKeys {
			seen[string(b)] = struct{}{}
		}
	})
	mu.Lock()
	defer mu.Unlock()
	keys := make([]string, 0, len(seen))
	for k := range seen {
		keys = append(keys, k)
	}
	return keys, err
}

// Count counts the keys with that prefix that hold a value, on any member. With
// an error it counts what could be had.
func (s *Store) Count(ctx context.Context, prefix string) (int, error) {
	var mu sync.Mutex // guards seen
	seen := make(map[uint64]struct{})
	err := s.askEach(ctx, askCount, prefix, func(b []byte) {
		if len(b) != 8 {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		seen[binary.BigEndian.Uint64(b)] = struct{}{}
	})
	mu.Lock()
	defer mu.Unlock()
	return len(seen), err
}

// askEach calls f with what each member has to list, this one first. A key is
// listed by each member that has a copy.
func (s *Store) askEach(ctx context.Context, a ask, prefix string, f func([]byte)) error {
	if len(prefix) > MaxKey {
		return fmt.Errorf("kv: prefix has %d bytes: want at most %d", len(prefix), MaxKey)
	}
	if s.caller.Load() == nil {
		return s.why()
	}
	if in := s.current(); in != nil {
		list(in.engine, a, prefix, func(b []byte) bool { f(b); return true })
	}
	peers := s.cfg.Peers()
	errs := make([]error, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			if err := s.askList(ctx, p.Boot, a, prefix, f); err != nil {
				errs[i] = fmt.Errorf("%w: keys of member %016x: %w", ErrUnavailable, p.Boot, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Store) askList(ctx context.Context, boot uint64, a ask, prefix string, f func([]byte)) error {
	conn, err := s.openStream(ctx, boot, a, prefix)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	if err := conn.SetDeadline(time.Now().Add(listTimeout)); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	buf := make([]byte, MaxKey)
	for range maxKeys {
		var n [2]byte
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return err
		}
		l := int(binary.BigEndian.Uint16(n[:]))
		if l == 0 {
			return nil
		}
		if l > len(buf) {
			return errHello
		}
		if _, err := io.ReadFull(r, buf[:l]); err != nil {
			return err
		}
		f(buf[:l])
	}
	return nil
}

// serveKeys writes each entry after its length in 2 bytes; a length of 0 ends
// the list.
func (s *Store) serveKeys(conn net.Conn, in *instance, a ask, prefix string) error {
	if err := conn.SetDeadline(time.Now().Add(listTimeout)); err != nil {
		return err
	}
	if err := writeAnswer(conn, statusOK, s.clock.now()); err != nil {
		return err
	}
	w := bufio.NewWriter(conn)
	var err error
	list(in.engine, a, prefix, func(b []byte) bool {
		var n [2]byte
		binary.BigEndian.PutUint16(n[:], uint16(len(b)))
		_, _ = w.Write(n[:])
		_, err = w.Write(b)
		return err == nil
	})
	_, _ = w.Write([]byte{0, 0})
	return w.Flush()
}

func list(g *engine, a ask, prefix string, f func([]byte) bool) {
	var found [][]byte
	now := g.clock.now()
	g.each(func(hkey uint64, e envelope) {
		if !e.live(now) || e.kind() != KindValue || !strings.HasPrefix(string(e.key()), prefix) {
			return
		}
		if a == askCount {
			found = append(found, binary.BigEndian.AppendUint64(nil, hkey))
		} else {
			found = append(found, e.key())
		}
	})
	for _, b := range found {
		if !f(b) {
			return
		}
	}
}
