// Package validate has the test that the manifests are of the types that the
// Kubernetes API gives them. It is a module of its own, so that nobody who uses
// peerlimit gets the dependencies that it takes.
package validate
