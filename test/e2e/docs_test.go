package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// documents are those for people who use and run peerlimit.
func documents(t testing.TB) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, name := range []string{"README.md", "SECURITY.md", "cmd/node/deploy/README.md", "cmd/node/deploy/MIGRATING.md", "cmd/node/deploy/monitoring/README.md"} {
		text, err := os.ReadFile(filepath.Join(root(t), name))
		require.NoError(t, err)
		texts[name] = string(text)
	}
	return texts
}

var (
	fenced      = regexp.MustCompile("(?ms)^ *```(?:sh|console)\n(.*?)^ *```")
	inline      = regexp.MustCompile("`([^`\n]+)`")
	ourCommand  = regexp.MustCompile(`(?:go run \./cmd/node|(?:^|\s)node) ([a-z]+)(.*)`)
	flag        = regexp.MustCompile(`(?:^|\s)--([a-z][a-z-]*)`)
	helpFlag    = regexp.MustCompile(`--([a-z][a-z-]*)`)
	metric      = regexp.MustCompile(`peerlimit_[a-z0-9_]+`)
	loggedLine  = regexp.MustCompile(`msg=("[^"]+"|[a-z]+)`)
	variable    = regexp.MustCompile(`PEERLIMIT_[A-Z_]+`)
	link        = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading     = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notInAnchor = regexp.MustCompile(`[^a-z0-9 -]`)
)

// flagsOf are the flags that a command's help names.
func flagsOf(t testing.TB, command ...string) (flags []string) {
	t.Helper()
	code, stdout, stderr := runNode(t, append(command, "--help")...)
	require.Zero(t, code, "%v: %s", command, stderr)
	for _, match := range helpFlag.FindAllStringSubmatch(stdout, -1) {
		flags = append(flags, match[1])
	}
	return flags
}

// Every command in a block of code is one, and takes the flags it is given;
// every flag that the text names is one of some command.
func TestDocumentsNameCommandsAndFlagsThatThereAre(t *testing.T) {
	known := map[string][]string{}
	for _, command := range []string{"demo", "serve", "check", "status"} {
		known[command] = flagsOf(t, command)
	}
	for _, of := range []string{"create", "list", "show", "disable", "delete", "rotate"} {
		known["keys"] = append(known["keys"], flagsOf(t, "keys", of)...)
	}
	var anywhere []string
	for _, flags := range known {
		anywhere = append(anywhere, flags...)
	}
	commands := 0
	for name, text := range documents(t) {
		for _, block := range fenced.FindAllStringSubmatch(text, -1) {
			for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", " ")) {
				match := ourCommand.FindStringSubmatch(strings.TrimPrefix(strings.TrimSpace(line), "$ "))
				if match == nil {
					continue
				}
				commands++
				flags, ok := known[match[1]]
				if !assert.True(t, ok, "%s: %q is no command", name, match[1]) {
					continue
				}
				for _, given := range flag.FindAllStringSubmatch(match[2], -1) {
					assert.Contains(t, flags, given[1], "%s: %s", name, strings.TrimSpace(line))
				}
			}
		}
		for _, span := range inline.FindAllStringSubmatch(text, -1) {
			if strings.HasPrefix(span[1], "node ") || strings.HasPrefix(span[1], "--") {
				for _, named := range flag.FindAllStringSubmatch(span[1], -1) {
					if named[1] != "help" && named[1] != "config" {
						assert.Contains(t, anywhere, named[1], "%s: %s", name, span[1])
					}
				}
			}
		}
	}
	assert.Greater(t, commands, 10, "blocks of code are not found any more")
}

// programText is all that is not tests, by which names in documents are judged.
func programText(t testing.TB) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{"cluster", "cache", "ratelimit", "auth", "cmd"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root(t), dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		}))
	}
	return all.String()
}

// Every metric, variable and log line that a document names is in the program.
func TestDocumentsNameMetricsAndLogLinesThatThereAre(t *testing.T) {
	program := programText(t)
	// Parts of messages that are put together: "breaker " and the state.
	literal := func(message string) bool {
		if strings.Contains(program, `"`+message+`"`) || strings.Contains(program, `"`+message+`:`) {
			return true
		}
		first, rest, found := strings.Cut(message, " ")
		return found && strings.Contains(program, `"`+first+` "`) && strings.Contains(program, `"`+rest+`"`)
	}
	metrics, lines := 0, 0
	for name, text := range documents(t) {
		for _, found := range metric.FindAllString(text, -1) {
			metrics++
			if found == "peerlimit_" {
				continue
			}
			own := strings.TrimPrefix(found, "peerlimit_")
			assert.True(t, strings.Contains(program, `"`+own+`"`) || strings.Contains(program, `"`+found+`"`), "%s names the metric %s", name, found)
		}
		for _, found := range variable.FindAllString(text, -1) {
			own := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(found, "PEERLIMIT_"), "_", "-"))
			assert.Contains(t, flagsOf(t, "serve"), own, "%s names the variable %s", name, found)
		}
		for _, found := range loggedLine.FindAllStringSubmatch(text, -1) {
			lines++
			message := strings.Trim(found[1], `"`)
			assert.True(t, literal(message), "%s names the log line %q", name, message)
		}
	}
	assert.Greater(t, metrics, 15, "metrics are not found any more")
	assert.Greater(t, lines, 15, "log lines are not found any more")
}

// Links within the repository lead somewhere, also those to a heading.
func TestDocumentsLinkToWhatThereIs(t *testing.T) {
	links := 0
	for name, text := range documents(t) {
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			links++
			of := text
			if target != "" {
				path := filepath.Join(root(t), filepath.Dir(name), target)
				info, err := os.Stat(path)
				if !assert.NoError(t, err, name) || info.IsDir() {
					continue
				}
				bytes, err := os.ReadFile(path)
				require.NoError(t, err)
				of = string(bytes)
			}
			if anchor == "" {
				continue
			}
			var anchors []string
			for _, h := range heading.FindAllStringSubmatch(of, -1) {
				anchors = append(anchors, strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
			}
			assert.True(t, slices.Contains(anchors, anchor), "%s: %s: no such heading", name, match[1])
		}
	}
	assert.Greater(t, links, 15)
}

// The three terminals' commands of the laptop's recipe, word for word but for
// the ports, are three members of one cluster, and one limit.
func TestTheRecipeForALaptop(t *testing.T) {
	t.Parallel()
	text := documents(t)["cmd/node/deploy/README.md"]
	_, recipe, found := strings.Cut(text, "## On a laptop")
	require.True(t, found)
	recipe, _, _ = strings.Cut(recipe, "\n## ")
	ports := freePorts(t, 12)
	var pairs []string
	for i, gossip := range []string{"7946", "7956", "7966"} {
		http := []string{"8080", "8081", "8082"}[i]
		pairs = append(pairs, "127.0.0.1:"+gossip, "127.0.0.1:"+ports[4*i], "127.0.0.1:"+http, "127.0.0.1:"+ports[4*i+1])
	}
	replace := strings.NewReplacer(pairs...)
	var members []*Member
	var clients [][]string
	for _, block := range fenced.FindAllStringSubmatch(recipe, -1) {
		for line := range strings.Lines(block[1]) {
			line, ours := strings.CutPrefix(strings.TrimSpace(replace.Replace(line)), "go run ./cmd/node ")
			if !ours {
				continue
			}
			words := strings.Fields(line)
			if words[0] != "serve" {
				clients = append(clients, words)
				continue
			}
			i := len(members)
			args := append(words[1:], "--peer-bind=127.0.0.1:"+ports[4*i+2], "--kv-bind=127.0.0.1:"+ports[4*i+3])
			members = append(members, StartMember(t, MemberOptions{Name: "laptop", Cluster: clusterName(t), Args: args}))
		}
	}
	require.Len(t, members, 3)
	require.Len(t, clients, 3)
	three := &Cluster{t: t, members: members}
	three.AwaitOneRing(startTimeout)
	var said []string
	for _, words := range clients {
		if !slices.Contains(words, "--http") { // the default port, which is the first member's
			words = append(words, "--http", "http://"+members[0].HTTP)
		}
		code, stdout, stderr := runNode(t, words...)
		require.Zero(t, code, stderr)
		said = append(said, stdout)
	}
	for _, name := range []string{"a", "b", "c"} {
		assert.Regexp(t, `(?m)^`+name+` +alive`, said[0])
	}
	assert.Contains(t, said[1], "allowed: 4 of 5")
	assert.Contains(t, said[2], "allowed: 3 of 5", "the second check was not of the same limit")
}

var goName = regexp.MustCompile(`\b(ratelimit|cache|cluster|auth|Cache|Counter|Limiter|Decision)\.([A-Z][A-Za-z]+)\b`)

// Every function, type and constant of ours that a document names is exported.
func TestDocumentsNameGoThatThereIs(t *testing.T) {
	inPackage := map[string]string{"Cache": "cache.Cache", "Counter": "cache.Counter", "Limiter": "ratelimit.Limiter", "Decision": "ratelimit.Decision"}
	there := map[string]bool{}
	for _, name := range []string{"cluster", "cache", "ratelimit", "auth"} {
		declared(t, name, there)
	}
	named := 0
	for document, text := range documents(t) {
		for _, span := range inline.FindAllString(text, -1) {
			for _, match := range goName.FindAllStringSubmatch(span, -1) {
				of := match[1]
				if in, ok := inPackage[of]; ok {
					of = in
				}
				named++
				assert.True(t, there[of+"."+match[2]], "%s names %s.%s", document, of, match[2])
			}
		}
	}
	assert.Greater(t, named, 15, "names are not found any more")
}

// declared adds what a package declares: package.Name, and package.Type.Name of
// fields and methods.
func declared(t testing.TB, name string, all map[string]bool) {
	t.Helper()
	sources, err := filepath.Glob(filepath.Join(root(t), name, "*.go"))
	require.NoError(t, err)
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), source, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				all[name+"."+receiver(d)+d.Name.Name] = true
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.ValueSpec:
						for _, id := range spec.Names {
							all[name+"."+id.Name] = true
						}
					case *ast.TypeSpec:
						all[name+"."+spec.Name.Name] = true
						of, ok := spec.Type.(*ast.StructType)
						if !ok {
							continue
						}
						for _, field := range of.Fields.List {
							for _, id := range field.Names {
								all[name+"."+spec.Name.Name+"."+id.Name] = true
							}
						}
					}
				}
			}
		}
	}
}

// receiver is "Type." of a method, nothing of a function.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	of := d.Recv.List[0].Type
	for {
		switch e := of.(type) {
		case *ast.StarExpr:
			of = e.X
		case *ast.IndexExpr:
			of = e.X
		case *ast.IndexListExpr:
			of = e.X
		case *ast.Ident:
			return e.Name + "."
		default:
			return ""
		}
	}
}
