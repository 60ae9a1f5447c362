//go:build race

package h1_test

// spared is how many allocations a relayed request may make: with the race detector, pools drop some of what they get.
const spared = 12
