package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/execgate/execgate/internal/metrics"
)

// Set by the linker (see Makefile); what go build and go install know stands in
// when they are empty.
var version, commit string

// buildInfo says what is running.
func buildInfo() metrics.Build {
	b := metrics.Build{Version: version, Commit: commit}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if b.Version == "" {
		b.Version = info.Main.Version // "(devel)" for a build of a work tree
	}
	for _, setting := range info.Settings {
		if b.Commit == "" && setting.Key == "vcs.revision" {
			b.Commit = setting.Value
		}
	}
	return b
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which version this is",
		Args:  cobra.NoArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			b := buildInfo()
			if b.Commit == "" {
				b.Commit = "unknown"
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "execgate %s (commit %s, %s, %s/%s)\n",
				b.Version, b.Commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		}),
	}
}
