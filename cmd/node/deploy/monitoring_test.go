package deploy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/peerlimit/peerlimit/cluster/metrics"
)

// rules is a rule file of Prometheus.
type rules struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	} `yaml:"groups"`
}

type rule struct {
	Alert       string            `yaml:"alert,omitempty"`
	Record      string            `yaml:"record,omitempty"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

// dashboard is as much of Grafana's format as is checked.
type dashboard struct {
	Title      string
	Panels     []panel
	Templating struct {
		List []struct{ Name, Definition string }
	}
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct{ Expr, RefID string }
}

func readRules(t *testing.T) (all []rule) {
	t.Helper()
	text, err := os.ReadFile("monitoring/alerts.yaml")
	require.NoError(t, err)
	var file rules
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(&file))
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	require.NotEmpty(t, all)
	return all
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile("monitoring/dashboard.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &d))
	require.NotEmpty(t, d.Panels)
	return d
}

var metricName = regexp.MustCompile(`peerlimit_[a-z0-9_]+`)

// used returns the metrics that expr names, histograms without their suffix.
func used(expr string) (names []string) {
	for _, name := range metricName.FindAllString(expr, -1) {
		if !slices.Contains(metrics.Names(), name) {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				name = strings.TrimSuffix(name, suffix)
			}
		}
		names = append(names, name)
	}
	return names
}

func TestRulesNameMetricsThatThereAre(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range readRules(t) {
		names := used(r.Expr)
		assert.NotEmpty(t, names, r.Alert)
		for _, name := range names {
			assert.Contains(t, metrics.Names(), name, "in the expression of %s", r.Alert)
		}
		assert.True(t, strings.HasPrefix(r.Alert, "Peerlimit"), r.Alert)
		assert.False(t, seen[r.Alert], "%s is there twice", r.Alert)
		seen[r.Alert] = true
		assert.Contains(t, []string{"critical", "warning", "info"}, r.Labels["severity"], r.Alert)
		assert.NotEmpty(t, r.Annotations["summary"], r.Alert)
		assert.NotEmpty(t, r.Annotations["description"], r.Alert)
	}
	recorded, err := os.ReadFile("monitoring/alerts_test.yaml")
	require.NoError(t, err)
	for alert := range seen {
		assert.Contains(t, string(recorded), alert, "it is tested against recorded series")
	}
}

func TestTheDashboardShowsEveryMetric(t *testing.T) {
	d := readDashboard(t)
	shown, ids := map[string]bool{}, map[int]bool{}
	taken := map[[2]int]string{}
	for _, v := range d.Templating.List {
		for _, name := range used(v.Definition) {
			assert.Contains(t, metrics.Names(), name, "in the variable %s", v.Name)
		}
	}
	for _, p := range d.Panels {
		assert.NotEmpty(t, p.Title)
		assert.False(t, ids[p.ID], "two panels have the ID %d", p.ID)
		ids[p.ID] = true
		assert.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				assert.Empty(t, taken[[2]int{x, y}], "%s lies on another panel", p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		assert.NotEmpty(t, p.Description, p.Title)
		assert.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			names := used(target.Expr)
			assert.NotEmpty(t, names, p.Title)
			for _, name := range names {
				assert.Contains(t, metrics.Names(), name, "in %s", p.Title)
				shown[name] = true
			}
		}
	}
	for _, name := range metrics.Names() {
		assert.True(t, shown[name], "%s is on no panel", name)
	}
}

// promtool runs the tool that comes with Prometheus.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed; it comes with Prometheus")
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	assert.NoError(t, err, "promtool %s:\n%s", strings.Join(args, " "), out)
}

func TestRulesAreWellFormed(t *testing.T) { promtool(t, "check", "rules", "monitoring/alerts.yaml") }

func TestTheConfigurationIsWellFormed(t *testing.T) {
	promtool(t, "check", "config", "--syntax-only", "monitoring/prometheus.yaml")
}

// The page for people names metrics without their prefix.
func TestTheTableNamesMetricsThatThereAre(t *testing.T) {
	text, err := os.ReadFile("monitoring/README.md")
	require.NoError(t, err)
	names := regexp.MustCompile("`…(_[a-z_]+)").FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, names)
	for _, name := range names {
		assert.True(t, slices.ContainsFunc(metrics.Names(), func(n string) bool { return strings.HasSuffix(n, name[1]) }), name[0])
	}
}

func TestRulesFireWhenTheyShould(t *testing.T) {
	promtool(t, "test", "rules", "monitoring/alerts_test.yaml")
}

func TestTheDashboardsExpressionsAreWellFormed(t *testing.T) {
	fill := strings.NewReplacer("$job", "shop", "$instance", ".*", "$__rate_interval", "1m")
	var file rules
	file.Groups = append(file.Groups, struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	}{Name: "dashboard"})
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			expr := fill.Replace(target.Expr)
			require.NotContains(t, expr, "$", p.Title)
			file.Groups[0].Rules = append(file.Groups[0].Rules, rule{
				Record: fmt.Sprintf("panel_%d_%s", p.ID, strings.ToLower(target.RefID)), Expr: expr,
			})
		}
	}
	text, err := yaml.Marshal(file)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "dashboard.yaml")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	promtool(t, "check", "rules", path)
}
