package main

import (
	"github.com/spf13/cobra"

	"github.com/execgate/execgate/internal/demo"
)

func newDemo() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the gateway at work, everything in one process",
		Long: `Starts a demo identity API, an example target and the gateway on the embedded
store, creates a target and an execution through the admin API, and shows what
becomes of calls. Stays up until Ctrl-C, or with --once ends after the tour:
failed (1) if any step did not do what it says.`,
		Args: cobra.NoArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			return demo.Run(cmd.Context(), demo.Options{
				Once:  once,
				Out:   cmd.OutOrStdout(),
				Start: demo.StartGateway(buildInfo()),
			})
		}),
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the tour")
	return cmd
}
