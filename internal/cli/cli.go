package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Commands returns the commands, with the environment that they look at, as
// from os.Environ.
func Commands(environ []string) []*cobra.Command {
	p := &program{environ: environ}
	commands := []*cobra.Command{
		p.newTarget(),
		p.newExecution(),
		p.newPlan(),
		p.newApply(),
		p.newRollback(),
		p.newRevisions(),
		p.newAudit(),
		p.newExport(),
		p.newImport(),
		p.newExplain(),
		p.newTestFire(),
		p.newDeliveries(),
		p.newDisable(),
		p.newEnable(),
	}
	for _, cmd := range commands {
		cmd.GroupID = Group.ID
	}
	return commands
}

// Group is the group of the commands in the help of the root command.
var Group = &cobra.Group{ID: "admin", Title: "Commands for a running gateway:"}

// program is what all commands have in common.
type program struct{ environ []string }

// session is one run of a command.
type session struct {
	*client
	cmd    *cobra.Command
	format format
}

func (s *session) out() io.Writer { return s.cmd.OutOrStdout() }

// say writes a line for a person, nothing with -o json or yaml.
func (s *session) say(format string, args ...any) {
	if s.format == table {
		_, _ = fmt.Fprintf(s.out(), format+"\n", args...)
	}
}

// body is what a command does once it is connected.
type body func(ctx context.Context, s *session, args []string) error

// usageError is an error about the arguments.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// remote makes a command a client of the admin API, with the flags for the
// connection and, unless it is nil, for the output.
func (p *program) remote(cmd *cobra.Command, o *format, do body, options ...option) *cobra.Command {
	c := p.connectionFlags(cmd)
	for _, add := range options {
		add(cmd, c)
	}
	if o != nil {
		outputFlag(cmd, o)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return run(cmd, c, o, args, do)
	}
	return cmd
}

func run(cmd *cobra.Command, c *connection, o *format, args []string, do body) error {
	client, err := c.open()
	if err != nil {
		return outcome(err)
	}
	defer client.close()
	s := &session{client: client, cmd: cmd}
	if o != nil {
		s.format = *o
	}
	return outcome(do(cmd.Context(), s, args))
}

// outcome makes every error a failure that is not about the arguments.
func outcome(err error) error {
	var wrong *usageError
	var failure *Failure
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		return wrong
	case errors.As(err, &failure):
		return err
	default:
		return &Failure{Err: err}
	}
}

// exactly wants so many arguments and names them when they are not there.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage("%s: %s is missing; usage: %s", cmd.CommandPath(), names[len(args)], cmd.UseLine())
		case len(args) > len(names):
			return usage("%s: one argument too many: %q; usage: %s", cmd.CommandPath(), args[len(names)], cmd.UseLine())
		}
		for i, arg := range args {
			if arg == "" {
				return usage("%s: %s is empty", cmd.CommandPath(), names[i])
			}
		}
		return nil
	}
}

// atLeastOne wants one or more arguments.
func atLeastOne(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage("%s: %s is missing; usage: %s", cmd.CommandPath(), name, cmd.UseLine())
		}
		for _, arg := range args {
			if arg == "" {
				return usage("%s: %s is empty", cmd.CommandPath(), name)
			}
		}
		return nil
	}
}

// group makes a command that only holds others. A word that is none of them is
// an error about the arguments.
func group(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += fmt.Sprintf("; did you mean %s?", near[0])
		}
		return usage("%s", text)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(children...)
	return cmd
}
