package main

import (
	"fmt"
	"strings"
)

// readyLine is the one line that serve prints on stdout, once it serves.
// Scripts and the demo read the addresses from it, above all those of ports
// that were free.
func readyLine(gossip, peer, kv, http string) string {
	return fmt.Sprintf("ready gossip=%s peer=%s kv=%s http=%s", gossip, peer, kv, http)
}

// parseReady is the inverse of readyLine. Fields that a later version adds are
// kept, those of today must be there.
func parseReady(line string) (map[string]string, error) {
	words := strings.Fields(line)
	if len(words) == 0 || words[0] != "ready" {
		return nil, fmt.Errorf("said %q, not that it is ready", line)
	}
	fields := map[string]string{}
	for _, word := range words[1:] {
		name, value, found := strings.Cut(word, "=")
		if !found {
			return nil, fmt.Errorf("said %q: %q has no value", line, word)
		}
		fields[name] = value
	}
	for _, name := range []string{"gossip", "peer", "kv", "http"} {
		if fields[name] == "" {
			return nil, fmt.Errorf("said %q: no %s address", line, name)
		}
	}
	return fields, nil
}
