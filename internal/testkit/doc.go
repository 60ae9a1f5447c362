// Package testkit has what execgate's tests share: real counterparts instead of
// mocks, and small helpers around them.
//
// StartRedis runs a redis-server, NewTarget a scripted HTTP endpoint that
// records what it is sent, and the package demoapi below is a whole identity
// API. Logger, FreeAddr, NewCertificates and Main take care of the rest.
// Everything ends with the test that started it.
//
// Nothing outside of tests may import this package; demoapi is the exception,
// since the demo runs on it.
package testkit
