// Package oidcauth lets callers of the admin API come with JWT access tokens of an OpenID Connect provider.
//
// Start from [New]: the [Authenticator] finds the provider's keys by discovery and keeps them current while
// [Authenticator.Run] runs, checks who issued a token, for whom, and when it is valid, and turns what a claim says into
// permissions. It answers nothing about opaque tokens: there is no introspection here.
//
// It is a package of its own so that admin does not depend on the OpenID Connect library.
package oidcauth
