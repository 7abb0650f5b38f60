package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// httpServer serves the HTTP API of one member. Every stage of a request has a
// deadline, so that a client that sends a byte a minute holds nothing for long.
type httpServer struct {
	server   *http.Server
	listener net.Listener
	conns    *conns
	handler  *handler
	done     chan struct{} // closed when it serves no more
	err      error         // why; read it after done
}

const (
	headerTimeout = 5 * time.Second  // for a request's header
	readTimeout   = 15 * time.Second // for the whole request
	writeTimeout  = 30 * time.Second // from the end of the header to the end of the answer
	idleTimeout   = 2 * time.Minute  // between two requests of a connection
	maxHeader     = 16 << 10
)

// listenHTTP begins to serve h.
func listenHTTP(ctx context.Context, bind address, h *handler, log *slog.Logger) (*httpServer, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", string(bind))
	if err != nil {
		return nil, fmt.Errorf("--http: %w", err)
	}
	// A page from elsewhere, open in a browser on this machine, must not be
	// able to spend permits or revoke keys.
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h.refused(refusedOrigin)
		writeProblem(w, http.StatusForbidden, "a browser sent this for a page from elsewhere")
	}))
	conns := newConns(mostConns, h.refused)
	s := &httpServer{
		listener: listener,
		conns:    conns,
		handler:  h,
		done:     make(chan struct{}),
		server: &http.Server{
			Handler:           conns.handler(h.ownHost(sameOrigin.Handler(h))),
			ConnState:         conns.follow,
			ConnContext:       conns.context,
			ReadHeaderTimeout: headerTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
	}
	go func() {
		defer close(s.done)
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.err = fmt.Errorf("http: %w", err)
		}
	}()
	return s, nil
}

func (s *httpServer) addr() string { return s.listener.Addr().String() }

// shutdown answers what is under way, and nothing after it. Clients with open
// connections are told to go elsewhere for grace before the listener closes.
func (s *httpServer) shutdown(ctx context.Context, grace time.Duration) error {
	s.handler.closing.Store(true)
	if grace > 0 {
		select {
		case <-time.After(grace):
		case <-ctx.Done():
		}
	}
	hangUp := time.AfterFunc(silentGrace, s.conns.closeSilent)
	err := s.server.Shutdown(ctx)
	hangUp.Stop()
	if err != nil {
		err = errors.Join(fmt.Errorf("http: %w", err), s.server.Close())
	}
	<-s.done
	return errors.Join(err, s.err)
}

// close ends the server at once.
func (s *httpServer) close() error {
	err := s.server.Close()
	<-s.done
	return err
}

// silentGrace is how long a connection that has not yet said anything is waited
// for when the server stops.
const silentGrace = 200 * time.Millisecond
