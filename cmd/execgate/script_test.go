package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"execgate": main})
}

// TestScript runs the sessions of testdata/script with the real main in a
// process of its own.
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exitcode": exitCode,
			"retry":    retry,
			"dialable": dialable,
		},
		Setup: func(env *testscript.Env) error {
			if err := quickExit(env); err != nil {
				return err
			}
			for _, name := range []string{"PROXY", "ADMIN", "OPS"} {
				listener, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				env.Setenv(name, listener.Addr().String())
				if err := listener.Close(); err != nil {
					return err
				}
			}
			example, err := os.ReadFile("../../config.example.yaml")
			if err != nil {
				return err
			}
			return os.WriteFile(env.Cd+"/config.example.yaml", example, 0o600)
		},
	})
}

// exitCode runs a command that ends with the given code: exitcode 2 execgate x.
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || strconv.Itoa(exit.ExitCode()) != args[0] {
		ts.Fatalf("%s: got %v, want exit code %s", strings.Join(args[1:], " "), err, args[0])
	}
}

// retry runs a command until it succeeds.
func retry(ts *testscript.TestScript, _ bool, args []string) {
	var err error
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if err = ts.Exec(args[0], args[1:]...); err == nil {
			return
		}
	}
	ts.Fatalf("%s: %v", strings.Join(args, " "), err)
}

// dialable waits until something listens on an address.
func dialable(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if conn, err := net.DialTimeout("tcp", args[0], time.Second); err == nil {
			ts.Check(conn.Close())
			return
		}
	}
	ts.Fatalf("nothing listens on %s", args[0])
}
