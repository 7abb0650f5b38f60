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

// clusterConfig makes a cluster.Config of the flags. The package checks it.
func (c *serveCommand) clusterConfig() (cluster.Config, error) {
	if c.MinMembers < 1 { // 0 would be taken for the default
		return cluster.Config{}, usagef("--min-members: must be 1 to 10000, is %d", c.MinMembers)
	}
	config := cluster.Config{
		ClusterName: c.Cluster, NodeID: c.NodeID, Zone: c.Zone,
		Bind: string(c.Bind), PeerBind: string(c.PeerBind), KVBind: string(c.KVBind), Advertise: c.Advertise,
		Join:    c.Join,
		TLSCert: c.TLSCert, TLSKey: c.TLSKey, TLSCA: c.TLSCA,
		MinMembers:   c.MinMembers,
		DrainTimeout: leaveWithin,
	}
	if c.SecretFile == "" {
		return config, nil
	}
	secrets, err := readSecrets("--secret-file", c.SecretFile, shortestSecret)
	if err != nil {
		return cluster.Config{}, err
	}
	for _, secret := range secrets {
		config.Secrets = append(config.Secrets, []byte(secret))
	}
	return config, nil
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
