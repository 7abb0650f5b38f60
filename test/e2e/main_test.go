package e2e

import (
	testflag "flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

// nodeBinary is cmd/node, built once for all tests.
var nodeBinary string

func TestMain(m *testing.M) {
	if os.Getenv(echoVariable) != "" {
		serveEcho() // this process is the control of another one; see echo_test.go
		return
	}
	if os.Getenv(serviceVariable) != "" {
		os.Exit(serveService()) // this process is a replica of a service; see service_test.go
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "peerlimit-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	nodeBinary = filepath.Join(dir, "node")
	// cp is given what would be run, which is not linked again where it was run before.
	build := exec.Command("go", "run", "-exec", "cp", "github.com/peerlimit/peerlimit/cmd/node", nodeBinary)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: build cmd/node:", err)
		return 1
	}
	_ = testflag.Set("test.parallel", "4") // in place of its default: they mostly wait
	code := m.Run()
	processes.close()
	if left := processes.left(); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "e2e: tests left processes behind, which were killed:", left)
		code = 1
	}
	leaks, searched, known := secrets.found()
	if testing.Verbose() {
		fmt.Printf("e2e: searched %d bytes of logs and answers for %d secrets\n", searched, known)
	}
	if len(leaks) > 0 {
		fmt.Fprintln(os.Stderr, "e2e: secrets of the tests were shown:")
		for _, leak := range leaks[:min(len(leaks), 20)] {
			fmt.Fprintln(os.Stderr, "    ", leak)
		}
		code = 1
	}
	if code == 0 {
		if err := clustertest.Leaked(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			code = 1
		}
	}
	return code
}
