// Package demoapi is a small identity API that behaves like the real thing: the
// upstream of execgate's demo, of its tests and of its examples.
//
// It keeps users, sessions, organizations and an event log in memory, and
// serves them as today's identity providers do, everything on one port: gRPC
// with reflection and health, gRPC-Web, Connect for the v2 services, REST by
// the HTTP rules of its schema, and the plain web beside them (a login page,
// OpenID discovery, server-sent events). Two services of our own, StreamService
// and RouteService, have the kinds of method and of route that the identity API
// lacks.
//
// Start with New. What reached the server can be watched through
// Options.OnRequest and Server.Last.
//
// It is no identity provider: nothing is persisted, permissions do not exist,
// and codes that would be sent by mail are not.
package demoapi
