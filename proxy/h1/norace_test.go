//go:build !race

package h1_test

// spared is how many allocations a relayed request may make.
const spared = 0
