package e2e

import (
	"bytes"
	"fmt"
	"sync"
)

// secrets are the keys, tokens and secrets that the tests have used. What a
// member logs and which errors it answers is searched for them: they must be
// nowhere.
var secrets secretList

type secretList struct {
	mu    sync.Mutex
	known [][]byte // guarded by mu
	leaks []string // guarded by mu: where one was found, never the secret itself
	bytes int64    // guarded by mu: what was searched
}

// add takes in a secret.
func (l *secretList) add(secret string) {
	if secret == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = append(l.known, []byte(secret))
}

// search looks for every secret in what came from somewhere.
func (l *secretList) search(from string, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes += int64(len(text))
	for i, secret := range l.known {
		if at := bytes.Index(text, secret); at >= 0 {
			l.leaks = append(l.leaks, fmt.Sprintf("%s has secret %d of the tests at byte %d", from, i, at))
		}
	}
}

// found returns where secrets were found, and how much was searched.
func (l *secretList) found() (leaks []string, searched int64, secrets int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leaks, l.bytes, len(l.known)
}
