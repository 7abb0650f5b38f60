// Command node is peerlimit as a program: a standalone member of a cluster that
// any language talks to over HTTP, its command-line client, and a demonstration
// that needs nothing but this binary.
//
// It promises the flags, exit codes, routes and JSON fields that the README and
// --help name. It holds no logic of its own about limits, caches or keys: each
// is a package that can be embedded without this one.
package main

import (
	"context"
	"os"
)

func main() {
	ctx, stop := untilSignal(context.Background())
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
