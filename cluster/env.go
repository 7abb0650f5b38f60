package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// envNames gives the variable that ConfigFromEnv reads a field from.
var envNames = map[string]string{
	"ClusterName":  "PEERLIMIT_CLUSTER",
	"NodeID":       "PEERLIMIT_NODE_ID",
	"Zone":         "PEERLIMIT_ZONE",
	"Bind":         "PEERLIMIT_BIND",
	"PeerBind":     "PEERLIMIT_PEER_BIND",
	"KVBind":       "PEERLIMIT_KV_BIND",
	"Advertise":    "PEERLIMIT_ADVERTISE",
	"Join":         "PEERLIMIT_JOIN",
	"Secrets":      "PEERLIMIT_SECRET_FILE",
	"TLSCert":      "PEERLIMIT_TLS_CERT",
	"TLSKey":       "PEERLIMIT_TLS_KEY",
	"TLSCA":        "PEERLIMIT_TLS_CA",
	"MinMembers":   "PEERLIMIT_MIN_MEMBERS",
	"JoinTimeout":  "PEERLIMIT_JOIN_TIMEOUT",
	"DrainTimeout": "PEERLIMIT_DRAIN_TIMEOUT",
}

// ConfigFromEnv returns the Config that environment variables describe:
//
//	PEERLIMIT_CLUSTER        ClusterName
//	PEERLIMIT_NODE_ID        NodeID
//	PEERLIMIT_ZONE           Zone
//	PEERLIMIT_BIND           Bind
//	PEERLIMIT_PEER_BIND      PeerBind
//	PEERLIMIT_KV_BIND        KVBind
//	PEERLIMIT_ADVERTISE      Advertise
//	PEERLIMIT_JOIN           Join, separated by commas
//	PEERLIMIT_SECRET_FILE    Secrets: a file with one a line; the first is used, all are accepted
//	PEERLIMIT_TLS_CERT       TLSCert
//	PEERLIMIT_TLS_KEY        TLSKey
//	PEERLIMIT_TLS_CA         TLSCA
//	PEERLIMIT_MIN_MEMBERS    MinMembers
//	PEERLIMIT_JOIN_TIMEOUT   JoinTimeout, such as 2s
//	PEERLIMIT_DRAIN_TIMEOUT  DrainTimeout, such as 10s
//
// One that is unset or empty leaves the field at its default. The error for a
// bad value names the variable.
func ConfigFromEnv() (Config, error) {
	return configFrom(os.Getenv)
}

func configFrom(get func(string) string) (Config, error) {
	env := func(field string) string { return strings.TrimSpace(get(envNames[field])) }
	bad := func(field string, err error) error {
		return fmt.Errorf("cluster: %s: %w", envNames[field], err)
	}
	c := Config{
		ClusterName: env("ClusterName"),
		NodeID:      env("NodeID"),
		Zone:        env("Zone"),
		Bind:        env("Bind"),
		PeerBind:    env("PeerBind"),
		KVBind:      env("KVBind"),
		Advertise:   env("Advertise"),
		TLSCert:     env("TLSCert"),
		TLSKey:      env("TLSKey"),
		TLSCA:       env("TLSCA"),
	}
	for s := range strings.SplitSeq(env("Join"), ",") {
		if s = strings.TrimSpace(s); s != "" {
			c.Join = append(c.Join, s)
		}
	}
	if v := env("MinMembers"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return Config{}, bad("MinMembers", fmt.Errorf("%q is not a number from 1 to %d", v, maxMembers))
		}
		c.MinMembers = n
	}
	for field, d := range map[string]*time.Duration{"JoinTimeout": &c.JoinTimeout, "DrainTimeout": &c.DrainTimeout} {
		v := env(field)
		if v == "" {
			continue
		}
		var err error
		if *d, err = time.ParseDuration(v); err != nil || *d <= 0 {
			return Config{}, bad(field, fmt.Errorf("%q is not a duration above 0, such as 2s", v))
		}
	}
	if file := env("Secrets"); file != "" {
		var err error
		if c.Secrets, err = ReadSecrets(file); err != nil {
			return Config{}, bad("Secrets", err)
		}
	}
	if err := c.withDefaults().validate(); err != nil {
		if ce, ok := errors.AsType[*ConfigError](err); ok {
			if name := envNames[ce.Field]; name != "" {
				return Config{}, fmt.Errorf("cluster: %s: %s%s", name, forEnv.Replace(ce.Detail), cause(ce.Err))
			}
		}
		return Config{}, err
	}
	return c, nil
}

// forEnv turns the names of fields in a text into those of variables.
var forEnv = strings.NewReplacer("so Secret must be set", "so "+envNames["Secrets"]+" must be set",
	"TLSCert", envNames["TLSCert"], "TLSKey", envNames["TLSKey"], "TLSCA", envNames["TLSCA"])

func cause(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// ReadSecrets reads a file of secrets, one a line, without the spaces around
// it; empty lines are skipped. The first is meant to be used, all to be
// accepted. Files above 64 KiB and files without a secret are errors.
func ReadSecrets(file string) ([][]byte, error) {
	const most = 64 << 10
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, fmt.Errorf("%s has %d bytes, at most %d", file, info.Size(), most)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			out = append(out, line)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no secret", file)
	}
	if len(out) > maxSecrets {
		return nil, fmt.Errorf("%s holds %d secrets, at most %d", file, len(out), maxSecrets)
	}
	return out, nil
}
