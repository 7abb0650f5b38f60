package validate

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// kinds are the types that the manifests may have.
var kinds = map[metav1.TypeMeta]func() any{
	{APIVersion: "v1", Kind: "Service"}:                         func() any { return new(corev1.Service) },
	{APIVersion: "apps/v1", Kind: "Deployment"}:                 func() any { return new(appsv1.Deployment) },
	{APIVersion: "apps/v1", Kind: "StatefulSet"}:                func() any { return new(appsv1.StatefulSet) },
	{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}:      func() any { return new(policyv1.PodDisruptionBudget) },
	{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}: func() any { return new(networkingv1.NetworkPolicy) },
}

// decode reads one document into the type that it says it is; unknown fields,
// fields given twice and values of another type are errors.
func decode(document []byte) (any, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(document, &kind); err != nil {
		return nil, err
	}
	newObject := kinds[kind]
	if newObject == nil {
		return nil, errors.New("unexpected kind " + kind.String())
	}
	object := newObject()
	return object, yaml.UnmarshalStrict(document, object, yaml.DisallowUnknownFields)
}

func TestManifestsAreOfTheirTypes(t *testing.T) {
	files, err := filepath.Glob("../*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("manifests: %v %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		documents, found := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text))), 0
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			object, err := decode(document)
			if err != nil {
				t.Errorf("%s: document %d: %v", file, found+1, err)
				continue
			}
			found++
			meta := object.(metav1.ObjectMetaAccessor).GetObjectMeta()
			for _, problem := range validation.IsDNS1035Label(meta.GetName()) {
				t.Errorf("%s: name %q: %s", file, meta.GetName(), problem)
			}
			for key, value := range meta.GetLabels() {
				for _, problem := range append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...) {
					t.Errorf("%s: label %s=%s: %s", file, key, value, problem)
				}
			}
			switch o := object.(type) {
			case *appsv1.Deployment:
				podIsRight(t, file, o.Spec.Selector, &o.Spec.Template)
			case *appsv1.StatefulSet:
				podIsRight(t, file, o.Spec.Selector, &o.Spec.Template)
			}
		}
		if found != 5 {
			t.Errorf("%s has %d objects, not 5", file, found)
		}
	}
}

// podIsRight checks what the API server would, beyond types: the selector takes
// the template's pods, and names of ports are valid and each is there once.
func podIsRight(t *testing.T, file string, s *metav1.LabelSelector, pod *corev1.PodTemplateSpec) {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	if !selector.Matches(labels.Set(pod.Labels)) {
		t.Errorf("%s: the selector does not take the template's labels", file)
	}
	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range pod.Spec.Containers {
		names := map[string]bool{}
		for _, p := range c.Ports {
			for _, problem := range validation.IsValidPortName(p.Name) {
				t.Errorf("%s: port %q: %s", file, p.Name, problem)
			}
			if names[p.Name] {
				t.Errorf("%s: port %q is there twice", file, p.Name)
			}
			names[p.Name] = true
		}
		for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
			if name := probe.HTTPGet.Port.StrVal; !names[name] {
				t.Errorf("%s: a probe asks port %q, which the container does not have", file, name)
			}
		}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("%s: volume %q is mounted and not there", file, m.Name)
			}
		}
	}
}

func TestMistakesAreFound(t *testing.T) {
	for name, document := range map[string]string{
		"an unknown field":   "apiVersion: v1\nkind: Service\nspec: {publishNotReadyAddress: true}\n",
		"another type":       "apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: many}\n",
		"a field twice":      "apiVersion: v1\nkind: Service\nspec: {}\nspec: {}\n",
		"a kind nobody uses": "apiVersion: v1\nkind: Pod\n",
	} {
		if _, err := decode([]byte(document)); err == nil {
			t.Errorf("%s was not found", name)
		}
	}
}
