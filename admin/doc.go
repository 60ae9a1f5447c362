// Package admin is the API through which targets and executions are managed: the services
// zitadel.resources.action.v3alpha.ZITADELActions and zitadel.action.v2.ActionService over one store, reachable by
// gRPC, REST, gRPC-Web and Connect on one port, with server reflection and grpc.health.v1.
//
// A call walks the same way whatever its protocol (guard.go): authentication, permission, field validation, feature
// flag, then the command. The commands speak of stored records and know neither API (targets.go, executions.go,
// publickeys.go, query.go); v3alpha.go and v2.go translate. An error is given its code, id and text where it is
// found (errors.go lists them) and becomes a status in one place.
//
// Health checks and reflection need no token, for probes and tools have none and neither tells a secret. Calls to this
// API never trigger executions.
//
// Start with [New] and [Server.Handler].
package admin
