package admin

import (
	"context"

	"google.golang.org/grpc/codes"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
)

// configRules are the rules of the methods in this file; see rules.
var configRules = map[string]rule{
	gatewaypb.GatewayService_Plan_FullMethodName:   {permGatewayRead, fields(func(*gatewaypb.PlanRequest) error { return nil }), false},
	gatewaypb.GatewayService_Apply_FullMethodName:  {permGatewayWrite, fields(func(*gatewaypb.ApplyRequest) error { return nil }), false},
	gatewaypb.GatewayService_Export_FullMethodName: {permGatewayRead, fields(func(*gatewaypb.ExportRequest) error { return nil }), false},
	gatewaypb.GatewayService_Import_FullMethodName: {permGatewayWrite, fields(func(*gatewaypb.ImportRequest) error { return nil }), false},
}

var errNotBuilt = &Error{codes.Unimplemented, "", "not built yet"}

// Plan says what Apply would change.
func (g *gateway) Plan(context.Context, *gatewaypb.PlanRequest) (*gatewaypb.PlanResponse, error) {
	return nil, errNotBuilt
}

// Apply brings the configuration to what a document says.
func (g *gateway) Apply(context.Context, *gatewaypb.ApplyRequest) (*gatewaypb.ApplyResponse, error) {
	return nil, errNotBuilt
}

// Export writes the configuration.
func (g *gateway) Export(context.Context, *gatewaypb.ExportRequest) (*gatewaypb.ExportResponse, error) {
	return nil, errNotBuilt
}

// Import reads what Export wrote.
func (g *gateway) Import(context.Context, *gatewaypb.ImportRequest) (*gatewaypb.ImportResponse, error) {
	return nil, errNotBuilt
}
