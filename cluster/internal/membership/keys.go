package membership

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/hashicorp/memberlist"
)

// label is put before every packet and stream, in the clear. Where there is a
// secret it is authenticated with the rest.
func label(cluster string) string { return "peerlimit/" + cluster }

// gossipKey derives the AES-256 key of a secret (HKDF with SHA-256, RFC 5869).
// The cluster's name is the salt, so that one secret used for two clusters
// gives two keys.
func gossipKey(secret []byte, cluster string) ([]byte, error) {
	if len(secret) == 0 {
		return nil, errors.New("membership: empty secret")
	}
	return hkdf.Key(sha256.New, secret, []byte(cluster), "peerlimit gossip 1", 32)
}

func gossipKeys(secrets [][]byte, cluster string) ([][]byte, error) {
	keys := make([][]byte, len(secrets))
	for i, s := range secrets {
		k, err := gossipKey(s, cluster)
		if err != nil {
			return nil, err
		}
		keys[i] = k
	}
	return keys, nil
}

// setKeys makes keys the ones that are accepted and the first of them the one
// in use. The others must agree on the new key before it is used: add it
// everywhere, then put it first everywhere, then take the old one away.
//
// memberlist hands out its slice of keys without a copy and RemoveKey shifts
// the elements of that slice in place, under the eyes of whoever decrypts just
// then. Removing the last one shifts nothing, so the keys to remove are first
// made the last.
func setKeys(ring *memberlist.Keyring, keys [][]byte) error {
	for _, k := range keys {
		if err := ring.AddKey(k); err != nil {
			return fmt.Errorf("membership: add key: %w", err)
		}
	}
	for i := len(keys) - 1; i >= 0; i-- {
		if err := ring.UseKey(keys[i]); err != nil {
			return fmt.Errorf("membership: use key: %w", err)
		}
	}
	distinct := make(map[string]bool, len(keys))
	for _, k := range keys {
		distinct[string(k)] = true
	}
	for all := ring.GetKeys(); len(all) > len(distinct); all = ring.GetKeys() {
		if err := ring.RemoveKey(all[len(all)-1]); err != nil {
			return fmt.Errorf("membership: remove key: %w", err)
		}
	}
	return nil
}
