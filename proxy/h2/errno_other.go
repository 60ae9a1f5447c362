//go:build !unix

package h2

func isTooMany(error) bool { return false }
