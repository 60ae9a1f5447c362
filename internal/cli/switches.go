package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/config"
)

func (p *program) newDisable() *cobra.Command {
	return p.newDispatch("disable", false, "Switch all executions off: every call passes untouched", `Switches dispatch off on every gateway of the store: no execution fires, every
call passes untouched. Targets and executions stay as they are.
With --local it works without the admin API and without the store: it writes
the kill file of the gateway on this machine, whose path --config tells.
One target or one execution: execgate target disable, execgate execution disable.`,
		`  execgate disable
  execgate disable --local --config /etc/execgate.yaml`)
}

func (p *program) newEnable() *cobra.Command {
	return p.newDispatch("enable", true, "Switch executions on again", `Switches dispatch on again on every gateway of the store. With --local it removes
the kill file of the gateway on this machine.`,
		`  execgate enable
  execgate enable --local --config /etc/execgate.yaml`)
}

func (p *program) newDispatch(verb string, on bool, short, long, example string) *cobra.Command {
	var o format
	var local bool
	cmd := &cobra.Command{Use: verb, Short: short, Long: long, Example: example, Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&local, "local", false, "through the kill file of the gateway on this machine")
	cmd = p.remote(cmd, &o, func(ctx context.Context, s *session, _ []string) error {
		res, err := s.gateway.SetSwitches(ctx, &gatewaypb.SetSwitchesRequest{Switches: &gatewaypb.Switches{Dispatch: &on}})
		if err != nil {
			var failure *Failure
			if errors.As(err, &failure) {
				failure.suggest("on the gateway's own machine, execgate " + verb + " --local --config FILE works without its admin API")
			}
			return err
		}
		return s.show(res, func(w io.Writer) {
			_, _ = fmt.Fprintf(w, "dispatch is %s, revision %d\n", onOff(res.GetSwitches().GetDispatch()), res.GetRevision())
			if on && res.GetSwitches().GetKilledLocally() {
				_, _ = fmt.Fprintln(w, "but this gateway has its kill file: execgate enable --local --config FILE removes it")
			}
		})
	}, noWords)
	remote := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !local {
			return remote(cmd, args)
		}
		file, _ := cmd.Flags().GetString("config") // the flag exists
		return outcome(p.dispatchHere(cmd, file, on, o))
	}
	return cmd
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// dispatchHere writes or removes the kill file. It reads no more than the
// configuration: it has to work when nothing else does.
func (p *program) dispatchHere(cmd *cobra.Command, file string, on bool, o format) error {
	cfg, err := config.Load(file, p.environ)
	if err != nil {
		return err
	}
	path := cfg.Proxy.KillFile
	if path == "" {
		return &Failure{errors.New("proxy.kill_file is empty: the gateway looks at no kill file"), "set it and restart the gateway"}
	}
	if on {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the kill file: %w", err)
		}
	} else {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return fmt.Errorf("write the kill file: %w", err)
		}
		if err := os.WriteFile(path, []byte("dispatch was switched off with execgate disable --local\n"), 0o600); err != nil {
			return fmt.Errorf("write the kill file: %w", err)
		}
	}
	s := &session{cmd: cmd, format: o}
	return s.show(members{{"killFile", path}, {"killedLocally", !on}}, func(w io.Writer) {
		if on {
			_, _ = fmt.Fprintf(w, "%s is gone; the gateway on this machine follows the switches of the store again\n", path)
		} else {
			_, _ = fmt.Fprintf(w, "%s written; the gateway on this machine lets every call pass untouched\n", path)
		}
	})
}
