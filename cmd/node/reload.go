package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// reloader reads the files of secrets, tokens and certificates again, while
// the member serves. Which files there are stays what it was at the start.
type reloader struct {
	serve        *serveCommand
	handler      *handler
	certificates *certificateFiles // nil: none
	setSecrets   func([][]byte) error
	setTLS       func(*tls.Config) error
	log          *slog.Logger
}

// onHangup reads the files again at each SIGHUP, until stop is called. Signals
// that came since hangups were asked for are not lost.
func (r *reloader) onHangup(ctx context.Context, hangups <-chan os.Signal) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-hangups:
				r.reload()
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); wait.Wait() }
}

// askForHangups begins to take SIGHUPs, which end a process by default.
func askForHangups() (hangups chan os.Signal, stop func()) {
	hangups = make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	return hangups, func() { signal.Stop(hangups) }
}

// reload reads all files before it uses any: where one is bad, nothing changes.
func (r *reloader) reload() {
	if err := r.tryReload(); err != nil {
		r.log.Error("configuration not reloaded: it stays as it was", "error", err)
		return
	}
	r.log.Info("configuration reloaded")
}

func (r *reloader) tryReload() error {
	tokens, err := r.serve.readTokens()
	if err != nil {
		return err
	}
	secrets, err := r.serve.readMemberSecrets()
	if err != nil {
		return err
	}
	var certificates *tls.Config
	if r.certificates != nil {
		if certificates, err = r.certificates.read(); err != nil {
			return err
		}
	}
	if len(secrets) > 0 {
		if err := r.setSecrets(secrets); err != nil {
			return err
		}
	}
	if certificates != nil {
		if err := r.setTLS(certificates); err != nil {
			return err
		}
	}
	r.handler.tokens.Store(tokens)
	return nil
}
