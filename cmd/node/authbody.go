package main

import (
	"encoding/hex"
	"math"
	"time"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/cmd/node/internal/strictjson"
)

// specBody is the body of a request that makes or changes a key. Bounds beyond
// the types are the package's to check.
type specBody struct {
	project, name, prefix *string
	environment           auth.Environment
	scopes                *[]string
	metadata              *map[string]string
	limits                *map[string]auth.Limit
	expiresIn             *time.Duration // 0, where a key is changed: never

	key    string // of an import, as is the next
	digest auth.Digest
}

func (b *specBody) readCreate(r *strictjson.Reader) {
	b.read(r, func(name string) bool { return name == "project" || name == "environment" })
	if b.project == nil {
		r.FailFieldf("project", "is required")
	}
}

func (b *specBody) readImport(r *strictjson.Reader) {
	b.read(r, func(name string) bool {
		return name == "project" || name == "key" || name == "sha256" || name == "prefix"
	})
	if b.project == nil {
		r.FailFieldf("project", "is required")
	}
}

func (b *specBody) readPatch(r *strictjson.Reader) { b.read(r, func(string) bool { return false }) }

// read reads the fields of every such body, and of the others those that takes
// names.
func (b *specBody) read(r *strictjson.Reader, takes func(name string) bool) {
	shortest := time.Second
	if !takes("project") {
		shortest = 0 // takes the expiry away
	}
	for field := range r.Object() {
		switch name := string(field); {
		case name == "name":
			b.name = new(r.String())
		case name == "scopes":
			b.scopes = new(readStrings(r))
		case name == "metadata":
			b.metadata = new(readMetadata(r))
		case name == "limits":
			b.limits = new(readLimits(r))
		case name == "expires_in":
			b.expiresIn = new(r.Duration(shortest, auth.MaxLifetime))
		case !takes(name):
			r.Unknown()
		case name == "project":
			b.project = new(r.String())
		case name == "environment":
			b.environment = readEnvironment(r)
		case name == "prefix":
			b.prefix = new(r.String())
		case name == "key":
			b.key = r.String()
		default: // sha256
			digest, err := auth.ParseDigest(r.String())
			if err != nil {
				r.Failf("must be %d hexadecimal digits", hex.EncodedLen(len(digest)))
			}
			b.digest = digest
		}
	}
}

func or[T any](p *T, fallback T) T {
	if p == nil {
		return fallback
	}
	return *p
}

func (b *specBody) spec(now time.Time) auth.Spec {
	s := auth.Spec{Project: or(b.project, ""), Name: or(b.name, ""), Scopes: or(b.scopes, nil),
		Metadata: or(b.metadata, nil), Limits: or(b.limits, nil), Environment: b.environment}
	if b.expiresIn != nil {
		s.ExpiresAt = now.Add(*b.expiresIn)
	}
	return s
}

func (b *specBody) patch(now time.Time) auth.Patch {
	p := auth.Patch{Name: b.name, Scopes: b.scopes, Metadata: b.metadata, Limits: b.limits}
	if b.expiresIn != nil {
		p.ExpiresAt = new(time.Time)
		if *b.expiresIn > 0 {
			*p.ExpiresAt = now.Add(*b.expiresIn)
		}
	}
	return p
}

// readKeyBody reads {"key"}.
func readKeyBody(r *strictjson.Reader) (key string) {
	given := false
	for name := range r.Object() {
		if string(name) != "key" {
			r.Unknown()
			continue
		}
		given, key = true, r.String()
	}
	if !given {
		r.FailFieldf("key", "is required")
	}
	return key
}

func readStrings(r *strictjson.Reader) []string {
	list := []string{}
	for range r.Array() {
		list = append(list, r.String())
	}
	return list
}

func readMetadata(r *strictjson.Reader) map[string]string {
	m := map[string]string{}
	for field := range r.Object() {
		name := string(field) // the reader's own bytes are not to be kept
		m[name] = r.String()
	}
	return m
}

func readLimits(r *strictjson.Reader) map[string]auth.Limit {
	limits := map[string]auth.Limit{}
	for policy := range r.Object() {
		name := string(policy)
		var l auth.Limit
		for field := range r.Object() {
			switch string(field) {
			case "limit":
				l.Limit = r.Int(1, math.MaxInt64)
			case "period":
				l.Period = r.Duration(time.Millisecond, math.MaxInt64)
			case "burst":
				l.Burst = r.Int(1, math.MaxInt64)
			default:
				r.Unknown()
			}
		}
		limits[name] = l
	}
	return limits
}

func readEnvironment(r *strictjson.Reader) auth.Environment {
	switch text := r.Text(); {
	case text == nil: // of another type, which has been said
	case string(text) == auth.Live.String():
	case string(text) == auth.Test.String():
		return auth.Test
	default:
		r.Failf("must be live or test")
	}
	return auth.Live
}
