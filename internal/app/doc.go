// Package app wires a gateway together and gives it a life: [New], [App.Start],
// [App.Stop], or all of them as [App.Run].
//
// It is the one package that knows everybody, and it decides nothing: what
// fires, what is called and what a client sees is said elsewhere. What it owns
// is the order in which things begin and end (lifecycle.go), the way from the
// stored state to the snapshot in use (configurator.go), and the ops listener
// (ops.go).
package app
