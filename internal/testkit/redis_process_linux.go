package testkit

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// startWithParent starts a command that dies with the test process, even when that is killed. The kernel ties the child
// to the thread that started it, so one thread, which never ends, starts them all.
func startWithParent(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	starter.once.Do(func() {
		starter.commands = make(chan func())
		go func() {
			runtime.LockOSThread()
			for start := range starter.commands {
				start()
			}
		}()
	})
	err := make(chan error, 1)
	starter.commands <- func() { err <- cmd.Start() }
	return <-err
}

var starter struct {
	once     sync.Once
	commands chan func()
}
