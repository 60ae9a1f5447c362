// Command execgate runs the webhook execution gateway and its tools. This
// package is flags, signals and exit codes; internal/app has the rest.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/execgate/execgate/internal/cli"
	"github.com/execgate/execgate/internal/config"
)

// Exit codes, part of the contract of the command line.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) }

// run runs one command line and returns its exit code.
func run(args, environ []string, stdout, stderr io.Writer) int {
	// The first signal stops in good order. It also gives the signals back their
	// default effect, so that a second one ends the process at once.
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer release()
	context.AfterFunc(ctx, release)

	root := newRoot(environ)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var failure *failure
	var refused *cli.Failure
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &failure):
		report(stderr, failure.err)
		return exitFailed
	case errors.As(err, &refused):
		report(stderr, err)
		return exitFailed
	default:
		// Whatever no command said itself is about its arguments.
		_, _ = fmt.Fprintf(stderr, "execgate: %v\nRun \"execgate --help\" or \"execgate COMMAND --help\".\n", err)
		return exitUsage
	}
}

// failure is an error of a command that was called rightly.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// command makes the errors of a command failures, to tell them from those about
// its arguments.
func command(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := do(cmd, args); err != nil {
			return &failure{err}
		}
		return nil
	}
}

// report writes an error for a person: faults of a configuration one on a line,
// with their number at the end.
func report(w io.Writer, err error) {
	var faults config.Faults
	if !errors.As(err, &faults) {
		_, _ = fmt.Fprintf(w, "execgate: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nexecgate: "))
		return
	}
	noun := "faults"
	if len(faults) == 1 {
		noun = "fault"
	}
	_, _ = fmt.Fprintf(w, "%v\nexecgate: %d %s in the configuration\n", faults, len(faults), noun)
}

func newRoot(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "execgate",
		Short: "A webhook execution gateway in front of a gRPC identity API",
		Long: `execgate stands in front of a gRPC identity API. Calls that an execution
matches are shown to its targets over HTTP, which may rewrite or refuse them;
all others pass through untouched.

Exit codes: 0 done, 1 failed, 2 usage.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(
		newServe(environ),
		newValidate(environ),
		newHealthcheck(environ),
		newEchoTarget(),
		newDemo(),
		newVersion(),
	)
	root.AddGroup(cli.Group)
	root.AddCommand(cli.Commands(environ)...)
	return root
}

// configFlag adds --config.
func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "YAML `FILE` with the configuration (default: none, all defaults and EXECGATE_ variables)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // the flag exists
}
