package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/execgate/execgate/internal/config"
)

func newHealthcheck(environ []string) *cobra.Command {
	var file string
	var ready bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a running gateway whether it is well",
		Long: `Asks the gateway at ops.listen of the configuration for /healthz, or with
--ready for /readyz. Done (0) when it says yes, failed (1) otherwise: what a
container's health check wants.`,
		Args: cobra.NoArgs,
		RunE: command(func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file, environ)
			if err != nil {
				return err
			}
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			answer, err := ask(ctx, cfg.Ops.Listen, path)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), answer)
			return err
		}),
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&ready, "ready", false, "ask for /readyz: whether calls are served")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "give up after this `TIME`")
	return cmd
}

// ask gets path from the gateway that listens on address.
func ask(ctx context.Context, address, path string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if port == "0" {
		return "", errors.New("ops.listen has port 0, so the port that the gateway chose is not known; give it a port")
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1" // listening everywhere includes here
		if ip.Is6() {
			host = "::1"
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return "", err
	}
	// No proxy of the environment: the gateway is on this machine.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("no gateway answers at ops.listen %s: %w", address, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return "", fmt.Errorf("read the answer of %s: %w", path, err)
	}
	answer := strings.TrimSpace(string(body))
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s: %s", path, response.Status, answer)
	}
	return answer, nil
}
