package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// shellStep is a command of a block of the README, and what it shows below.
type shellStep struct{ command, shown string }

var (
	curlLine  = regexp.MustCompile(`(?m)^\s*(?:\$ )?curl\b`)
	shownPort = regexp.MustCompile(`127\.0\.0\.1:([0-9]+)`)
	shownID   = regexp.MustCompile(`key_[0-9a-v]+`)
	issuedKey = regexp.MustCompile(`pl_live_[0-9A-Za-z]+`)
	// What differs from run to run: times.
	shownTime = regexp.MustCompile(`(t=|Retry-After: |_ms":|after )[0-9.]+[mµ]?s?`)
)

// shellSteps are the commands of those blocks of the README that call curl.
func shellSteps(readme string) (steps []shellStep) {
	for _, block := range fenced.FindAllStringSubmatch(readme, -1) {
		if !curlLine.MatchString(block[1]) {
			continue
		}
		for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", " ")) {
			line = strings.TrimRight(line, "\n")
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				steps = append(steps, shellStep{command: command})
			} else if curlLine.MatchString(line) {
				steps = append(steps, shellStep{command: strings.TrimSpace(line)})
			} else if len(steps) > 0 {
				steps[len(steps)-1].shown += line + "\n"
			}
		}
	}
	return steps
}

// What the README has one type for curl, and before it, is typed, word for word,
// and answers what is shown there. Ports are other ones only where those of the
// README are taken.
func TestShellBlocksOfREADMEWithCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl, which the README's lines call")
	}
	text, err := os.ReadFile(filepath.Join(root(t), "README.md"))
	require.NoError(t, err)
	readme := string(text)
	steps := shellSteps(readme)
	ports := portsFor(t, steps)
	s := &shellSession{t: t, replace: ports, state: t.TempDir(), cluster: &Cluster{t: t}}
	if ports["127.0.0.1:8080"] != "127.0.0.1:8080" {
		t.Logf("ports of the README are taken: %v", ports)
	}
	curls := 0
	for _, step := range steps {
		if curlLine.MatchString(step.command) {
			curls++
		}
		s.run(step)
	}
	assert.Len(t, curlLine.FindAllString(readme, -1), curls, "lines of the README that call curl and were not run")
	assert.NotZero(t, curls)
}

// shellSession is what came of the commands so far.
type shellSession struct {
	t       testing.TB
	replace map[string]string // of the README, by what is here
	state   string            // where the members keep their keys
	cluster *Cluster
}

// here puts what is here in the place of what the README has.
func (s *shellSession) here(text string) string {
	var pairs []string
	for of, by := range s.replace {
		pairs = append(pairs, of, by)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

func (s *shellSession) run(step shellStep) {
	s.t.Helper()
	line := s.here(strings.ReplaceAll(step.command, "go run ./cmd/node ", "exec "+nodeBinary+" "))
	if strings.HasPrefix(line, "exec "+nodeBinary+" serve ") {
		m := s.serve(line)
		s.compare(step, readyLineOf(m))
		return
	}
	if step.shown == "" && curlLine.MatchString(step.command) {
		line += " --silent --fail"
	}
	c := s.command(line)
	c.Env = append(c.Env, "PEERLIMIT_HTTP=http://"+s.replace["127.0.0.1:8080"]) // for what leaves it out
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	require.NoError(s.t, processes.start(c))
	require.NoError(s.t, processes.wait(c), "%s: %s", step.command, errs.String())
	s.compare(step, strings.ReplaceAll(out.String(), "\r\n", "\n"))
}

// command is a line of a shell.
func (s *shellSession) command(line string) *exec.Cmd {
	c := exec.Command("sh", "-c", line)
	c.Dir = root(s.t)
	c.Env = append(cleanEnvironment(), "XDG_STATE_HOME="+s.state)
	return c
}

// serve starts a member and waits until it is one with those before it.
func (s *shellSession) serve(line string) *Member {
	s.t.Helper()
	m := &Member{Name: fmt.Sprintf("m%d", len(s.cluster.members)+1), t: s.t, ready: make(chan string, 1), gone: make(chan struct{})}
	m.command, m.client = s.command(line), &http.Client{}
	m.launch()
	s.t.Cleanup(m.cleanup)
	m.AwaitReady()
	s.cluster.members = append(s.cluster.members, m)
	s.cluster.AwaitOneRing(startTimeout)
	return m
}

func readyLineOf(m *Member) string {
	return fmt.Sprintf("ready gossip=%s peer=%s kv=%s http=%s\n", m.Gossip, m.Peer, m.KV, m.HTTP)
}

// compare requires that every line that is shown was printed, in this order;
// others may be in between, as headers are that the README leaves out. What was
// made up here, an ID and a key, takes the place of the README's from then on.
func (s *shellSession) compare(step shellStep, printed string) {
	s.t.Helper()
	rest := strings.Split(printed, "\n")
	for shown := range strings.Lines(step.shown) {
		if shown = strings.TrimSpace(shown); shown == "" {
			continue
		}
		pattern := regexp.QuoteMeta(s.here(shown))
		pattern = shownTime.ReplaceAllString(pattern, `${1}[0-9.]+[mµ]?s?`)
		pattern = strings.ReplaceAll(pattern, "…", ".*")
		unknown := shownID.FindString(shown)
		if s.replace[unknown] == "" && unknown != "" {
			pattern = strings.ReplaceAll(pattern, unknown, shownID.String())
		}
		line := regexp.MustCompile("^" + pattern + "$")
		at := slices.IndexFunc(rest, line.MatchString)
		require.GreaterOrEqual(s.t, at, 0, "%s\nthe README shows\n%s\nbut this was printed:\n%s", step.command, shown, printed)
		if s.replace[unknown] == "" && unknown != "" {
			s.replace[unknown] = shownID.FindString(rest[at])
		}
		if key := issuedKey.FindString(rest[at]); key != "" {
			s.replace["pl_live_…"] = key
			secrets.add(key)
		}
		rest = rest[at+1:]
	}
}

// portsFor gives each address of the commands one that is free: all as they are,
// if they are, else all others. Behind each gossip port the two next are free.
func portsFor(t testing.TB, steps []shellStep) map[string]string {
	t.Helper()
	var shown []int
	for _, step := range steps {
		for _, match := range shownPort.FindAllStringSubmatch(step.command, -1) {
			port, err := strconv.Atoi(match[1])
			require.NoError(t, err)
			shown = append(shown, port)
			if strings.Contains(step.command, "--bind 127.0.0.1:"+match[1]) {
				shown = append(shown, port+1, port+2)
			}
		}
	}
	slices.Sort(shown)
	shown = slices.Compact(shown)
	address := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	for by := 0; ; by += 997 {
		require.Less(t, by, 30_000, "no free ports")
		if slices.ContainsFunc(shown, func(port int) bool { return taken(address(port + by)) }) {
			continue
		}
		replace := map[string]string{}
		for _, port := range shown {
			replace[address(port)] = address(port + by)
		}
		return replace
	}
}

// taken says whether somebody listens at an address of this machine.
func taken(address string) bool {
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return true
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		return true
	}
	return udp.Close() != nil
}
