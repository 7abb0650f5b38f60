package deploy_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// The parts of the manifests that say something about the program.
type (
	object struct {
		Kind     string
		Metadata struct{ Name string }
		Spec     struct {
			ClusterIP                string `yaml:"clusterIP"`
			PublishNotReadyAddresses bool   `yaml:"publishNotReadyAddresses"`
			ServiceName              string `yaml:"serviceName"`
			MaxUnavailable           int    `yaml:"maxUnavailable"`
			Ports                    []port
			Ingress                  []struct{ Ports []port }
			Template                 struct{ Spec pod }
		}
	}
	port struct {
		Name          string
		Port          int
		ContainerPort int `yaml:"containerPort"`
		Protocol      string
	}
	pod struct {
		AutomountServiceAccountToken  *bool          `yaml:"automountServiceAccountToken"`
		TerminationGracePeriodSeconds int            `yaml:"terminationGracePeriodSeconds"`
		SecurityContext               map[string]any `yaml:"securityContext"`
		Containers                    []container
		Volumes                       []struct {
			Secret struct {
				DefaultMode int `yaml:"defaultMode"`
			}
		}
	}
	container struct {
		Args                                        []string
		Env                                         []struct{ Name, Value string }
		Ports                                       []port
		SecurityContext                             map[string]any `yaml:"securityContext"`
		StartupProbe, ReadinessProbe, LivenessProbe probe
		VolumeMounts                                []struct {
			MountPath string `yaml:"mountPath"`
			ReadOnly  bool   `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
	}
	probe struct {
		HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
	}
)

func (c *container) UnmarshalYAML(node *yaml.Node) error {
	type plain container
	if err := node.Decode((*plain)(c)); err != nil {
		return err
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		to := map[string]*probe{"startupProbe": &c.StartupProbe, "readinessProbe": &c.ReadinessProbe, "livenessProbe": &c.LivenessProbe}[node.Content[i].Value]
		if to == nil {
			continue
		}
		if err := node.Content[i+1].Decode(to); err != nil {
			return err
		}
	}
	return nil
}

// manifests are the objects of a file by kind; a headless service is "Peers".
func manifests(t *testing.T, file string) map[string]object {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	all := map[string]object{}
	for d := yaml.NewDecoder(f); ; {
		var o object
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return all
		} else {
			require.NoError(t, err, file)
		}
		if o.Spec.ClusterIP == "None" {
			o.Kind = "Peers"
		}
		require.NotContains(t, all, o.Kind, file)
		all[o.Kind] = o
	}
}

// workload is the pod of a file's Deployment or StatefulSet.
func workload(t *testing.T, file string) pod {
	t.Helper()
	all := manifests(t, file)
	o, ok := all["StatefulSet"]
	if !ok {
		o, ok = all["Deployment"]
	}
	require.True(t, ok, file)
	require.Len(t, o.Spec.Template.Spec.Containers, 1)
	return o.Spec.Template.Spec
}

var files = []string{"kubernetes/standalone.yaml", "kubernetes/embedded.yaml"}

// source reads a file of the program.
func source(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../..", path))
	require.NoError(t, err)
	return string(text)
}

// number finds the first group of a pattern in a file of the program.
func number(t *testing.T, path, pattern string) (n int) {
	t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(source(t, path))
	require.NotNil(t, match, "%s in %s", pattern, path)
	_, err := fmt.Sscan(match[1], &n)
	require.NoError(t, err)
	return n
}

func set(ports []port, number func(port) int) []string {
	names := map[string]bool{}
	for _, p := range ports {
		names[fmt.Sprintf("%d/%s", number(p), p.Protocol)] = true
	}
	return slices.Sorted(maps.Keys(names))
}

func TestPortsAreThoseOfTheProgram(t *testing.T) {
	gossip := number(t, "cmd/node/serve.go", `Bind +address +.default:"127\.0\.0\.1:([0-9]+)"`)
	web := number(t, "cmd/node/serve.go", `HTTP +address +.name:"http" default:"127\.0\.0\.1:([0-9]+)"`)
	between := []string{fmt.Sprintf("%d/TCP", gossip), fmt.Sprintf("%d/UDP", gossip), fmt.Sprintf("%d/TCP", gossip+1),
		fmt.Sprintf("%d/TCP", gossip+2), fmt.Sprintf("%d/UDP", gossip+2)}
	http := []string{fmt.Sprintf("%d/TCP", web)}
	for _, file := range files {
		all := manifests(t, file)
		number := func(p port) int { return p.Port }
		peers := all["Peers"]
		assert.True(t, peers.Spec.PublishNotReadyAddresses, "%s: members find each other before they are ready", file)
		assert.Equal(t, between, set(peers.Spec.Ports, number), file)
		assert.Equal(t, http, set(all["Service"].Spec.Ports, number), file)
		policy := all["NetworkPolicy"]
		require.Len(t, policy.Spec.Ingress, 2)
		assert.Equal(t, between, set(policy.Spec.Ingress[0].Ports, number), file)
		assert.Equal(t, http, set(policy.Spec.Ingress[1].Ports, number), file)
		assert.ElementsMatch(t, append(slices.Clone(between), http...),
			set(workload(t, file).Containers[0].Ports, func(p port) int { return p.ContainerPort }), file)
		assert.Equal(t, 1, all["PodDisruptionBudget"].Spec.MaxUnavailable, file)
		if s, ok := all["StatefulSet"]; ok {
			assert.Equal(t, peers.Metadata.Name, s.Spec.ServiceName, file)
		}
	}
}

func TestPodsMayLittleAndHaveTimeToLeave(t *testing.T) {
	answer := number(t, "cmd/node/serve.go", `answerWithin = ([0-9]+) \* time\.Second`)
	leave := number(t, "cmd/node/serve.go", `leaveWithin  = ([0-9]+) \* time\.Second`)
	for _, file := range files {
		p := workload(t, file)
		c := p.Containers[0]
		drain := 0
		for _, arg := range c.Args {
			_, _ = fmt.Sscanf(arg, "--drain-delay=%ds", &drain)
		}
		assert.Greater(t, p.TerminationGracePeriodSeconds, drain+answer+leave, file)
		require.NotNil(t, p.AutomountServiceAccountToken, file)
		assert.False(t, *p.AutomountServiceAccountToken, file)
		assert.Equal(t, true, p.SecurityContext["runAsNonRoot"], file)
		assert.NotEqual(t, 0, p.SecurityContext["runAsUser"], file)
		assert.Equal(t, map[string]any{
			"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": map[string]any{"drop": []any{"ALL"}},
		}, c.SecurityContext, file)
		for _, v := range p.Volumes {
			assert.Zero(t, v.Secret.DefaultMode&0o007, "%s: others may read the secrets", file)
		}
		for _, m := range c.VolumeMounts {
			assert.True(t, m.ReadOnly, file)
		}
		for _, probe := range []probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
			assert.Equal(t, "http", probe.HTTPGet.Port, file)
			assert.Contains(t, source(t, "cmd/node/routes.go")+source(t, "cluster/admin/handler.go")+source(t, "cluster/admin/doc.go")+source(t, "cmd/node/api_cluster.go"),
				probe.HTTPGet.Path, "%s: nothing answers there", file)
		}
		assert.Equal(t, c.StartupProbe, c.ReadinessProbe, file)
		assert.NotEqual(t, c.ReadinessProbe.HTTPGet.Path, c.LivenessProbe.HTTPGet.Path, "%s: what is not ready is not dead", file)
	}
}

// The example of embedding sets variables that cluster.ConfigFromEnv reads.
func TestVariablesAreRead(t *testing.T) {
	for _, file := range files {
		for _, env := range workload(t, file).Containers[0].Env {
			if strings.HasPrefix(env.Name, "PEERLIMIT_") && env.Name != "PEERLIMIT_KEY_STORE" {
				assert.Contains(t, source(t, "cluster/env.go"), `"`+env.Name+`"`, file)
			}
		}
	}
}
