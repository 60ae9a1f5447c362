package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/execgate/execgate/internal/app"
	"github.com/execgate/execgate/internal/config"
)

func newServe(environ []string) *cobra.Command {
	var file, document string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Runs the gateway until SIGTERM or Ctrl-C, then drains: /readyz answers 503 at
once, connections are taken for proxy.drain_delay more, and what is in flight
has proxy.drain_timeout to finish. A second signal ends it at once.

With --apply, targets and executions are brought to what a document says before
the first call is taken, in one revision; what it does not name stays as it is.
A faulty document ends the start. With Redis away the gateway starts on its last
known configuration and applies the document when Redis is back.`,
		Args: cobra.NoArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file, environ)
			if err != nil {
				return err
			}
			logger := newLogger(cfg.Log, cmd.ErrOrStderr())
			slog.SetDefault(logger)
			a, err := app.New(app.Options{Config: cfg, Logger: logger, Apply: document, Build: buildInfo()})
			if err != nil {
				return err
			}
			defer tuneHeap(environ)()
			return a.Run(cmd.Context())
		}),
	}
	configFlag(cmd, &file)
	cmd.Flags().StringVar(&document, "apply", "", "bring targets and executions to what `FILE` (YAML or JSON) says, then serve")
	_ = cmd.MarkFlagFilename("apply", "yaml", "yml", "json") // the flag exists
	return cmd
}

// newLogger logs as the configuration says.
func newLogger(cfg config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // checked with the configuration
	o := &slog.HandlerOptions{Level: level}
	if cfg.Format == "text" {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

func newValidate(environ []string) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check a configuration and report every fault",
		Long: `Checks the configuration as serve would, with the EXECGATE_ variables of the
environment: keys, types, addresses, files. It connects to nothing.`,
		Args: cobra.NoArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			if _, err := config.Load(file, environ); err != nil {
				return err
			}
			name := file
			if name == "" {
				name = "the environment"
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: valid\n", name)
			return err
		}),
	}
	configFlag(cmd, &file)
	return cmd
}
