// Package deploy_test checks what there is to run the program with.
package deploy_test

import (
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stages are a Dockerfile's instructions by stage.
func stages(t *testing.T) (all [][][2]string) {
	t.Helper()
	text, err := os.ReadFile("Dockerfile")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, rest, found := strings.Cut(line, " ")
		require.True(t, found, line)
		if name == "FROM" {
			all = append(all, nil)
		}
		require.NotEmpty(t, all, "the first instruction is not FROM")
		all[len(all)-1] = append(all[len(all)-1], [2]string{name, rest})
	}
	return all
}

func instruction(t *testing.T, stage [][2]string, name string) string {
	t.Helper()
	var found []string
	for _, i := range stage {
		if i[0] == name {
			found = append(found, i[1])
		}
	}
	require.Len(t, found, 1, name)
	return found[0]
}

// What the image would hold is built by the Dockerfile's own command, and is
// static: there is no libc beside it.
func TestTheImagesBinary(t *testing.T) {
	if os.Getenv("PEERLIMIT_SOAK") == "" {
		t.Skip("builds the standard library and everything else with other flags, for minutes: needs PEERLIMIT_SOAK=short")
	}
	all := stages(t)
	require.Len(t, all, 2)
	build, image := all[0], all[1]
	var command string
	for _, i := range build {
		if i[0] == "RUN" && strings.Contains(i[1], "go build") {
			command = i[1]
		}
	}
	require.Contains(t, command, "CGO_ENABLED=0 ")
	require.Contains(t, command, "-o /node ")
	binary := filepath.Join(t.TempDir(), "node")
	run := exec.Command("sh", "-c", strings.Replace(command, "-o /node ", "-o "+binary+" ", 1))
	run.Dir = "../../.."
	run.Env = append(os.Environ(), "GOOS=linux")
	out, err := run.CombinedOutput()
	require.NoError(t, err, "%s", out)
	file, err := elf.Open(binary)
	require.NoError(t, err)
	defer file.Close()
	for _, p := range file.Progs {
		assert.NotEqual(t, elf.PT_INTERP, p.Type, "it needs a dynamic linker")
	}
	libraries, err := file.ImportedLibraries()
	require.NoError(t, err)
	assert.Empty(t, libraries)

	assert.Equal(t, "scratch", instruction(t, image, "FROM"), "there is no shell")
	assert.NotRegexp(t, `^(0|root)(:|$)`, instruction(t, image, "USER"))
	var entry, args []string
	require.NoError(t, json.Unmarshal([]byte(instruction(t, image, "ENTRYPOINT")), &entry))
	require.NoError(t, json.Unmarshal([]byte(instruction(t, image, "CMD")), &args))
	require.Equal(t, []string{"/node"}, entry)
	out, err = exec.Command(binary, append(args, "--print-config")...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "# The effective configuration")
}

// The image of the build stage has the Go that go.mod asks for.
func TestTheBuildersGo(t *testing.T) {
	mod, err := os.ReadFile("../../../go.mod")
	require.NoError(t, err)
	version := regexp.MustCompile(`(?m)^go ([0-9]+\.[0-9]+)`).FindStringSubmatch(string(mod))
	require.NotNil(t, version)
	assert.Contains(t, instruction(t, stages(t)[0], "FROM"), "golang:"+version[1])
}
