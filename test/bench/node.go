package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// peerlimitHTTP asks one of three standalone nodes over HTTP with keep-alive,
// one check a request.
type peerlimitHTTP struct {
	binary string // of cmd/node; empty: it is built
	tls    bool

	dir    string
	gossip string // of the first node
	nodes  []*child
	urls   []string
	client *http.Client
}

func (p *peerlimitHTTP) name() string     { return "peerlimit-http" }
func (p *peerlimitHTTP) processes() []int { return pids(p.nodes) }

func (p *peerlimitHTTP) missing() string {
	if p.binary != "" {
		return ""
	}
	if _, err := os.Stat(filepath.Join(sourceRoot(), "cmd", "node")); err != nil {
		return "the source of cmd/node is not there; give a built one by -node"
	}
	return ""
}

// sourceRoot is where the module that is measured was when this was built.
func sourceRoot() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

func (p *peerlimitHTTP) start(ctx context.Context, callers int) (err error) {
	p.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: max(callers, spendCallers)}}
	if p.dir, err = os.MkdirTemp("", "bench-node-"); err != nil {
		return err
	}
	binary := p.binary
	if binary == "" {
		if binary, err = buildNode(ctx); err != nil {
			return err
		}
	}
	args := []string{"serve", "--cluster", "bench-http-" + strconv.Itoa(os.Getpid()), "--log-level", "error",
		"--bind", "127.0.0.1:0", "--peer-bind", "127.0.0.1:0", "--kv-bind", "127.0.0.1:0", "--http", "127.0.0.1:0"}
	if p.tls {
		secret := filepath.Join(p.dir, "secret")
		if err := os.WriteFile(secret, []byte(newSecret()+"\n"), 0o600); err != nil {
			return err
		}
		args = append(args, "--secret-file", secret)
	}
	for i := range 3 {
		if err := p.startNode(ctx, binary, append(args, "--node-id", fmt.Sprintf("bench-%d", i+1))); err != nil {
			return err
		}
		if i == 0 {
			args = append(args, "--join", p.gossip)
		}
	}
	return p.settle(ctx)
}

// buildNode builds cmd/node to a place where the next run finds it: go build
// does not link again what is up to date.
func buildNode(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(cache, "peerlimit-bench", "node")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/node")
	build.Dir = sourceRoot()
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building cmd/node: %w: %s", err, output)
	}
	return binary, nil
}

// startNode starts a node and reads where it serves from its first line.
func (p *peerlimitHTTP) startNode(ctx context.Context, binary string, args []string) error {
	node, err := startChild(exec.Command(binary, args...))
	if err != nil {
		return err
	}
	p.nodes = append(p.nodes, node)
	defer context.AfterFunc(ctx, func() { _ = node.command.Process.Kill() })()
	line, err := node.line()
	if err != nil {
		return err
	}
	for field := range strings.FieldsSeq(line) {
		switch name, address, _ := strings.Cut(field, "="); name {
		case "gossip":
			if p.gossip == "" {
				p.gossip = address
			}
		case "http":
			p.urls = append(p.urls, "http://"+address)
		}
	}
	if len(p.urls) != len(p.nodes) {
		return fmt.Errorf("%q does not say where HTTP is served", line)
	}
	return nil
}

// settle waits until each node has its share of the slots, with copies.
func (p *peerlimitHTTP) settle(ctx context.Context) error {
	for _, url := range p.urls {
		for {
			var status cluster.Status
			err := p.get(ctx, url+"/v1/cluster", &status)
			if err == nil && settledOn(status, len(p.nodes)) {
				break
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return errors.Join(ctx.Err(), err)
			}
		}
	}
	return nil
}

func (p *peerlimitHTTP) get(ctx context.Context, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return json.NewDecoder(response.Body).Decode(into)
}

// prepare takes no notice of where a key's holder is: a client of a node can't
// know. A third of the keys are held by the node that is asked.
func (p *peerlimitHTTP) prepare(_ context.Context, path path) (*job, error) {
	if !path.decides() || path.where == here || path.name == "remote" {
		return nil, nil
	}
	var doors []ask
	for _, url := range p.urls {
		doors = append(doors, p.asker(url, path.rule))
	}
	return &job{ask: doors[0], keys: path.names(path.keys), spend: spender(doors...), refills: true}, nil
}

// asker returns a check by one node. Keys are plain: they need no escaping.
func (p *peerlimitHTTP) asker(url string, r rule) ask {
	url += "/v1/ratelimit/check"
	tail := fmt.Sprintf(`","policy":%q,"limit":%d,"period":%q}`, r.Name, r.Limit, r.Period.String())
	return func(ctx context.Context, key string) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"key":"`+key+tail))
		if err != nil {
			return false, err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := p.client.Do(request)
		if err != nil {
			return false, err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		switch {
		case err != nil:
			return false, err
		case bytes.Contains(body, []byte(`"degraded":true`)):
			return false, fmt.Errorf("degraded: %s", body)
		case response.StatusCode == http.StatusOK:
			return true, nil
		case response.StatusCode == http.StatusTooManyRequests:
			return false, nil
		}
		return false, fmt.Errorf("%s: %s", response.Status, body)
	}
}

func (p *peerlimitHTTP) close() error {
	if p.client != nil {
		p.client.CloseIdleConnections()
	}
	killAll(p.nodes)
	dir := p.dir
	*p = peerlimitHTTP{binary: p.binary, tls: p.tls}
	if dir == "" {
		return nil
	}
	return os.RemoveAll(dir)
}
