// Package test has the end-to-end tests that need the built binary: how it
// drains, what survives kill -9, what its log shows.
package test
