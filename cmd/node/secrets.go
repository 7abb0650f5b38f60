package main

import (
	"bufio"
	"bytes"
	"os"
	"strings"
)

// mostSecretBytes is far above a file of secrets, and far below a file that was
// named by mistake.
const mostSecretBytes = 64 << 10

// readSecrets reads a file of secrets or tokens, one a line; empty lines and
// lines that begin with # are left out. A file is what they are read from
// because flags and the environment can be seen by other users of a machine.
// Errors name the flag and never what is in the file.
func readSecrets(flag, path string, shortest int) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, usagef("%s: %v", flag, err)
	}
	if info.Size() > mostSecretBytes {
		return nil, usagef("%s: %s: must have at most %d bytes, has %d", flag, path, mostSecretBytes, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("%s: %v", flag, err)
	}
	var secrets []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		secret := strings.TrimSpace(lines.Text())
		if secret == "" || secret[0] == '#' {
			continue
		}
		if len(secret) < shortest {
			return nil, usagef("%s: %s:%d: must have at least %d characters", flag, path, n, shortest)
		}
		secrets = append(secrets, secret)
	}
	if err := lines.Err(); err != nil {
		return nil, usagef("%s: %s: %v", flag, path, err)
	}
	if len(secrets) == 0 {
		return nil, usagef("%s: %s: must hold at least one line", flag, path)
	}
	return secrets, nil
}
