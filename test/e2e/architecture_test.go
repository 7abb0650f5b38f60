package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const modulePath = "github.com/peerlimit/peerlimit"

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	Doc        string
	GoFiles    []string
	Imports    []string // not those of tests
	Standard   bool
}

func (p pkg) own() string {
	own, found := strings.CutPrefix(p.ImportPath, modulePath+"/")
	if !found {
		return ""
	}
	return own
}

// root is the module's directory.
func root(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", modulePath).Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

func listPackages(t testing.TB, args ...string) (packages []pkg) {
	t.Helper()
	c := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Name,Doc,GoFiles,Imports,Standard"}, args...)...)
	c.Dir = root(t)
	c.Stderr = os.Stderr
	out, err := c.Output()
	require.NoError(t, err, "go list %v", args)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// adapters are packages with dependencies that not everybody wants. They may
// import any package of ours that is no adapter, and only programs import them.
var adapters = []string{
	"auth/grpcauth", "auth/postgres", "auth/sqlite", "cluster/admin", "cluster/metrics", "cluster/tracing",
	"ratelimit/grpclimit",
}

// mayImport says which packages of ours those under a directory may import,
// besides their own.
var mayImport = map[string][]string{
	"cluster":   {},
	"cache":     {"cluster"},
	"ratelimit": {"cluster"},
	"auth":      {"cluster", "cache"},
	"cmd":       {"cluster", "cache", "ratelimit", "auth"},
	"test":      {},
}

func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func area(path string) string {
	first, _, _ := strings.Cut(path, "/")
	return first
}

func TestWhoMayImportWhom(t *testing.T) {
	for _, p := range listPackages(t, "./...") {
		path := p.own()
		allowed, known := mayImport[area(path)]
		if !assert.True(t, known, "%s is in no area that there should be", path) {
			continue
		}
		adapter := slices.Contains(adapters, path)
		for _, imported := range p.Imports {
			to := pkg{ImportPath: imported}.own()
			switch {
			case to == "":
			case slices.ContainsFunc(adapters, func(a string) bool { return under(to, a) }):
				assert.True(t, area(path) == "cmd" || under(to, path) || under(path, to),
					"%s imports %s, an adapter: only programs may", path, to)
			case area(to) == area(path):
			case adapter:
				assert.NotEqual(t, "cmd", area(to), "%s imports a program", path)
			default:
				assert.Contains(t, allowed, area(to), "%s imports %s", path, to)
			}
			// What wraps a dependency is the only one that knows it.
			for dependency, home := range map[string]string{
				"github.com/olric-data/olric":     "cluster/internal/kv",
				"github.com/hashicorp/memberlist": "cluster/internal",
				"github.com/alecthomas/kong":      "cmd/node",
			} {
				if under(imported, dependency) && path != "cluster/internal/deps" {
					assert.True(t, under(path, home), "%s imports %s, which is for %s", path, imported, home)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range listPackages(t, "./...") {
		if len(p.GoFiles) == 0 {
			continue
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		assert.True(t, strings.HasPrefix(p.Doc, want), "%s: its doc comment is %q, want %q …", p.ImportPath, p.Doc, want)
	}
}

// Who embeds the packages gets no dependency that only a program needs.
func TestEmbeddingIsLight(t *testing.T) {
	var embedded []string
	for _, p := range listPackages(t, "./...") {
		if slices.Contains([]string{"cluster", "cache", "ratelimit", "auth"}, p.own()) {
			embedded = append(embedded, p.ImportPath)
		}
	}
	require.NotEmpty(t, embedded)
	for _, p := range listPackages(t, append([]string{"-deps"}, embedded...)...) {
		for _, heavy := range []string{
			"google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto",
			"database/sql", "modernc.org", "github.com/jackc", "github.com/mattn/go-sqlite3", "github.com/lib/pq",
			"github.com/prometheus", "go.opentelemetry.io", "github.com/stretchr/testify", "github.com/alecthomas/kong",
			"testing",
		} {
			assert.False(t, under(p.ImportPath, heavy), "embedding %v links %s", embedded, p.ImportPath)
		}
	}
}

// olric moved: its old path ends without authentication.
func TestOlricIsTakenFromWhereItIs(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "go.mod"))
	require.NoError(t, err)
	assert.NotContains(t, string(text), "github.com/buraksezer/olric")
	assert.Contains(t, string(text), "github.com/olric-data/olric v0.7.4")
}

func TestTopLevelIsAsOnTheCard(t *testing.T) {
	has := func(dir string) (names []string) {
		entries, err := os.ReadDir(filepath.Join(root(t), dir))
		require.NoError(t, err)
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") {
				names = append(names, e.Name())
			}
		}
		return names
	}
	for dir, card := range map[string][]string{
		"":     {"CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "auth", "cache", "cluster", "cmd", "go.mod", "go.sum", "ratelimit", "test"},
		"cmd":  {"node"},
		"test": {"bench", "e2e"},
	} {
		for _, name := range has(dir) {
			assert.Contains(t, card, name, "in %q", dir)
		}
	}
}

// A long file is not wrong, but somebody should look at it.
func TestFilesAreShort(t *testing.T) {
	const long = 400
	for _, p := range listPackages(t, "./...") {
		for _, name := range p.GoFiles {
			file, err := os.Open(filepath.Join(p.Dir, name))
			require.NoError(t, err)
			lines := 0
			for s := bufio.NewScanner(file); s.Scan(); lines++ {
			}
			require.NoError(t, file.Close())
			if lines > long {
				t.Logf("%s/%s has %d lines, more than %d", p.own(), name, lines, long)
			}
			assert.LessOrEqual(t, lines, 2*long, "%s/%s", p.own(), name)
		}
	}
}
