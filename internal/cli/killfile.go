package cli

import "github.com/execgate/execgate/internal/config"

// killFile is where the gateway looks for the file that switches dispatch off.
func killFile(*config.Config) string { return "data/execgate.kill" }
