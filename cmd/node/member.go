package main

import (
	"errors"
	"strings"

	"github.com/peerlimit/peerlimit/cluster"
)

// clusterFlags maps the fields of a cluster.Config to the flags that fill them.
var clusterFlags = map[string]string{
	"ClusterName": "--cluster", "NodeID": "--node-id", "Zone": "--zone",
	"Bind": "--bind", "PeerBind": "--peer-bind", "KVBind": "--kv-bind", "Advertise": "--advertise",
	"Join": "--join", "Secret": "--secret-file", "Secrets": "--secret-file",
	"TLSCert": "--tls-cert", "TLSKey": "--tls-key", "TLSCA": "--tls-ca", "TLS": "--tls-cert",
	"MinMembers": "--min-members",
}

// inFlags turns the names of fields in what the package says of one of them
// into those of flags.
var inFlags = strings.NewReplacer("so Secret must be set", "so --secret-file must be set",
	"TLSCert", "--tls-cert", "TLSKey", "--tls-key", "TLSCA", "--tls-ca")

// clusterConfig makes a cluster.Config of the flags, and names the files of its
// certificates, nil where there are none. The package checks the rest.
func (c *serveCommand) clusterConfig() (cluster.Config, *certificateFiles, error) {
	if c.MinMembers < 1 { // 0 would be taken for the default
		return cluster.Config{}, nil, usagef("--min-members: must be 1 to 10000, is %d", c.MinMembers)
	}
	config := cluster.Config{
		ClusterName: c.Cluster, NodeID: c.NodeID, Zone: c.Zone,
		Bind: string(c.Bind), PeerBind: string(c.PeerBind), KVBind: string(c.KVBind), Advertise: c.Advertise,
		Join:         c.Join,
		MinMembers:   c.MinMembers,
		DrainTimeout: leaveWithin,
	}
	var err error
	if config.Secrets, err = c.readMemberSecrets(); err != nil {
		return cluster.Config{}, nil, err
	}
	if c.TLSCert == "" || c.TLSKey == "" || c.TLSCA == "" {
		config.TLSCert, config.TLSKey, config.TLSCA = c.TLSCert, c.TLSKey, c.TLSCA // all empty, or refused
		return config, nil, nil
	}
	files := &certificateFiles{cert: c.TLSCert, key: c.TLSKey, authority: c.TLSCA}
	if config.TLS, err = files.read(); err != nil {
		return cluster.Config{}, nil, err
	}
	return config, files, nil
}

// mostMemberSecrets is what a cluster.Config takes.
const mostMemberSecrets = 16

// readMemberSecrets reads the file of secrets between members, if there is one.
func (c *serveCommand) readMemberSecrets() (secrets [][]byte, err error) {
	if c.SecretFile == "" {
		return nil, nil
	}
	lines, err := readSecrets("--secret-file", c.SecretFile, shortestSecret)
	if err != nil {
		return nil, err
	}
	if len(lines) > mostMemberSecrets {
		return nil, usagef("--secret-file: %s: must hold at most %d secrets, has %d", c.SecretFile, mostMemberSecrets, len(lines))
	}
	for _, line := range lines {
		secrets = append(secrets, []byte(line))
	}
	return secrets, nil
}

// startError makes bad usage of a Config that the package refused.
func startError(err error) error {
	if bad, ok := errors.AsType[*cluster.ConfigError](err); ok {
		if flag := clusterFlags[bad.Field]; flag != "" {
			detail := inFlags.Replace(bad.Detail)
			if bad.Err != nil {
				detail += ": " + bad.Err.Error()
			}
			return usagef("%s: %s", flag, detail)
		}
	}
	return err
}
