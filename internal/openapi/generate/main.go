// Command generate writes the OpenAPI document of the admin API:
//
//	go run ./internal/openapi/generate [-proto DIR] [-o FILE]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/execgate/execgate/internal/openapi"
)

func main() {
	dir := flag.String("proto", "proto", "directory of the proto files")
	out := flag.String("o", "admin/openapi.json", "file to write")
	flag.Parse()
	if err := generate(*dir, *out); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func generate(dir, out string) error {
	services, err := openapi.Sources(context.Background(), dir, openapi.Files...)
	if err != nil {
		return err
	}
	text, err := openapi.Document(services)
	if err != nil {
		return err
	}
	return os.WriteFile(out, text, 0o644) //nolint:gosec // it is part of the source
}
