package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/execgate/execgate/internal/echotarget"
)

func newEchoTarget() *cobra.Command {
	var o echotarget.Options
	var mode, keyFile string
	var names []string
	for _, m := range echotarget.Modes() {
		names = append(names, string(m))
	}
	cmd := &cobra.Command{
		Use:   "echo-target",
		Short: "Run a target that shows what it is sent",
		Long: `Runs a target for trying things out: it prints every request that it gets and
answers as --mode says.

  accept  200 without a body: nothing changes
  echo    the message as it came
  merge   the message with --merge merged into it (JSON merge patch)
  veto    a forwarded --status and --message: the call ends with them
  fail    the HTTP --status`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Mode = echotarget.Mode(mode)
			if err := o.Validate(); err != nil {
				return err // about the arguments
			}
			return command(func(cmd *cobra.Command, _ []string) error {
				if keyFile != "" {
					key, err := os.ReadFile(keyFile)
					if err != nil {
						return fmt.Errorf("read the signing key: %w", err)
					}
					o.SigningKey = strings.TrimRight(string(key), "\r\n")
				}
				return echotarget.Run(cmd.Context(), o, cmd.OutOrStdout())
			})(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Listen, "listen", echotarget.DefaultListen, "listen on this `ADDRESS`")
	f.StringVar(&mode, "mode", string(echotarget.Accept), "answer like this: "+strings.Join(names, ", "))
	f.StringVar(&o.Merge, "merge", "", "`JSON` object to merge into the message (mode merge)")
	f.IntVar(&o.Status, "status", 0, "`STATUS` to forward (mode veto) or to answer (mode fail)")
	f.StringVar(&o.Message, "message", "", "`TEXT` to forward (mode veto)")
	f.DurationVar(&o.Delay, "delay", 0, "wait this `TIME` before the answer")
	f.StringVar(&keyFile, "signing-key-file", "", "`FILE` with the target's signing key; requests that are not signed with it get 401")
	f.BoolVar(&o.Quiet, "quiet", false, "do not print bodies")
	return cmd
}
