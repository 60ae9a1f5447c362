//go:build !linux

package testkit

import "os/exec"

func startWithParent(cmd *exec.Cmd) error { return cmd.Start() }
