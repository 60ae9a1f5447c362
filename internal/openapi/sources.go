package openapi

import (
	"context"
	"fmt"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Files are the proto files whose services the document describes, relative to
// proto/.
var Files = []string{
	"zitadel/resources/action/v3alpha/action_service.proto",
	"zitadel/action/v2/action_service.proto",
	"execgate/v1/gateway_service.proto",
}

// Sources reads proto files below a directory, with their comments, and returns
// their services.
func Sources(ctx context.Context, dir string, files ...string) ([]protoreflect.ServiceDescriptor, error) {
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{dir}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := c.Compile(ctx, files...)
	if err != nil {
		return nil, fmt.Errorf("read the proto files: %w", err)
	}
	var services []protoreflect.ServiceDescriptor
	for _, file := range compiled {
		for i := range file.Services().Len() {
			services = append(services, file.Services().Get(i))
		}
	}
	return services, nil
}
